from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core.ops import accumulation_dtype
from flaim_core.scope import Scope, kernel


def _keep(scope: Scope, x: Array, rate, mask_shape: tuple[Any, ...]) -> Array:
    """`x / (1 - rate)` where a random mask with probability `1 - rate` is set, 0 elsewhere; `x` outside of training."""
    if not scope.training or (isinstance(rate, int | float) and rate == 0):
        return x
    keep = 1 - jnp.asarray(rate, accumulation_dtype(x))
    # The mask is drawn in float32, so that it is the same for every compute dtype.
    mask = jax.random.bernoulli(scope.rng("mask"), keep.astype(jnp.float32), mask_shape)
    return jnp.where(mask, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


@kernel
def dropout(scope: Scope, x: Float[Array, "..."], rate: float) -> Float[Array, "..."]:
    """Zero each element with probability `rate` in training. Srivastava et al. (2014)."""
    return _keep(scope, x, rate, x.shape)


@kernel
def drop_path(scope: Scope, x: Float[Array, "b ..."], rate: float | Float[Array, ""]) -> Float[Array, "b ..."]:
    """Zero each sample's whole residual branch with probability `rate` in training.

    Huang et al., "Deep Networks with Stochastic Depth" (2016).
    """
    return _keep(scope, x, rate, (x.shape[0],) + (1,) * (x.ndim - 1))


def drop_path_schedule(rate: float, depth: int) -> list[float]:
    """The rates of `drop_path` for `depth` blocks: linear from 0 for the first block to `rate` for the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
