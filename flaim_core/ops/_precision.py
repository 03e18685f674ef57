"""The precision of statistics, softmaxes and sums: float32, or wider where the data are."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def accumulation_dtype(x: Float[Array, "..."]) -> Any:
    """float32 for narrower types, otherwise the dtype of `x`."""
    return jnp.dtype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x.dtype


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` in `accumulation_dtype(x)`."""
    return x.astype(accumulation_dtype(x))
