from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._conv import pair, resolve_padding
from flaim_core.scope import Scope, kernel


@kernel
def standardised_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int | tuple | Literal["same"] | None = None,
    bias: bool = False,
    eps: float = 1e-8,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution whose kernel is normalised, for each output, to mean 0 and variance 1.

    Leaves and `padding` are those of `conv`. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and
    Weight Standardization" (2019).
    """
    shape = (kernel_size, kernel_size, x.shape[-1], features)
    weight = scope.param("kernel", shape, initializers.he_normal_fan_out, layout="hwio")
    wide = ops.at_least_float32(weight)
    centred = wide - jnp.mean(wide, (0, 1, 2), keepdims=True)
    var = jnp.mean(jnp.square(centred), (0, 1, 2), keepdims=True)
    weight = (centred * jax.lax.rsqrt(var + eps)).astype(x.dtype)
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), pair(kernel_size), pair(stride))
    y = ops.conv(x, weight, stride=pair(stride), padding=pads)
    return y + ops.per_channel(scope.param("bias", (features,), initializers.zeros), y) if bias else y
