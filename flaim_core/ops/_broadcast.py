"""Broadcasting and reshaping that works under `jax_numpy_rank_promotion="raise"` and on Explicit meshes."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def per_channel(vector: Shaped[Array, " c"], x: Shaped[Array, "*b c"]) -> Shaped[Array, "..."]:
    """`vector` as an array (1, ..., 1, c) of the rank of `x`."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def repeat_over_batch(value: Shaped[Array, "1 ..."], x: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """`value` repeated along the batch axis to x's batch size, and sharded along it as `x` is."""
    return jax.vmap(lambda _: value[0])(x)


def split_axis(x: Shaped[Array, "..."], axis: int, size: Any) -> Shaped[Array, "..."]:
    """Split `axis`, of length n, into two axes (n // size, size); `axis` is not negative, `size` may be symbolic.

    JAX supports reshapes of arrays on an Explicit mesh only one axis at a time.
    """
    return x.reshape(*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :])


def merge_axes(x: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """Merge `axis`, which is not negative, with the next one; the inverse of `split_axis`."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
