"""The dtype of statistics, softmaxes and sums: float32, or float64 for float64 inputs."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def accumulation_dtype(x: Float[Array, "..."]) -> Any:
    """float32 if the dtype of `x` is narrower, otherwise that dtype."""
    return jnp.dtype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x.dtype


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` in `accumulation_dtype(x)`."""
    return x.astype(accumulation_dtype(x))
