"""Arrays brought beside others: of any rank, for users who forbid implicit rank promotion; and of a sharded batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def per_channel(vector: Shaped[Array, " c"], x: Shaped[Array, "*b c"]) -> Shaped[Array, "..."]:
    """`vector` with leading axes of size 1, as many as `x` has, so that it broadcasts along x's last axis."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def for_each(member: Shaped[Array, "1 ..."], x: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """`member` once for each of x's batch, and sharded over the batch as `x` is."""
    return jax.vmap(lambda _: member[0])(x)


def split_axis(x: Shaped[Array, "..."], axis: int, size: int) -> Shaped[Array, "..."]:
    """`x` whose axis, counted from the front, becomes two, the second of `size`.

    One axis at a time is as much of a reshape as JAX can follow for an array on an Explicit mesh.
    """
    return x.reshape(*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])


def merge_axes(x: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """`x` whose axis, counted from the front, becomes one with the next; the inverse of `split_axis`."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
