import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.ops import at_least_float32, fusion_boundary, per_channel
from flaim_core.scope import Scope, kernel


@kernel
def evo_norm(
    scope: Scope, x: Float[Array, "b h w c"], *, group_size: int = 8, nonlinear: bool = True, eps: float = 1e-5
) -> Float[Array, "b h w c"]:
    """EvoNorm-S0, norm and activation in one: `x * sigmoid(v * x)`, divided by the standard deviation of its group.

    A group is `group_size` channels at all positions. Leaves: `scale`, `bias`, `v`. With `nonlinear=False`, where no
    activation would follow, only scale and bias are applied.
    Liu et al., "Evolving Normalization-Activation Layers" (2020), table 4.
    """
    c = x.shape[-1]
    wide = at_least_float32(x)
    if nonlinear:
        slope = per_channel(scope.param("v", (c,), initializers.ones, dtype=wide.dtype), x)
        grouped = ops.split_axis(wide, 3, group_size)
        deviation = fusion_boundary(jnp.sqrt(jnp.var(grouped, axis=(1, 2, 4), keepdims=True) + eps))
        swish = ops.split_axis(wide * jax.nn.sigmoid(slope * wide), 3, group_size)
        wide = ops.merge_axes(swish / deviation, 3)
    scale = scope.param("scale", (c,), initializers.ones, dtype=wide.dtype)
    bias = scope.param("bias", (c,), initializers.zeros, dtype=wide.dtype)
    return (wide * per_channel(scale, x) + per_channel(bias, x)).astype(x.dtype)
