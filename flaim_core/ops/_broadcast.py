"""Per-channel vectors beside arrays of any rank, for users who forbid implicit rank promotion."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def per_channel(vector: Shaped[Array, " c"], x: Shaped[Array, "*b c"]) -> Shaped[Array, "..."]:
    """`vector` with leading axes of size 1, as many as `x` has, so that it broadcasts along x's last axis."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))
