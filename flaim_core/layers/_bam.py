from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._conv import conv
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel


@kernel
def bam(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    dilation: int = 4,
    norm: Callable = batch_norm,
    act: Callable = relu,
    combine: Callable = jnp.multiply,
) -> Float[Array, "b h w c"]:
    """Bottleneck attention module: `x * (1 + sigmoid(combine(channel, spatial)))`.

    `channel` (b, c) is a two-layer network of the spatial means (paths `channel/fc1`, `channel/norm`, `channel/fc2`);
    `spatial` (b, h, w) is a 1x1 convolution to `hidden` channels, two dilated 3x3 convolutions and a 1x1 convolution
    (paths `spatial/conv1` to `spatial/conv4`, with `spatial/norm1` to `spatial/norm3`).
    Park et al., "BAM: Bottleneck Attention Module" (2018), section 3. The paper adds the two (`combine=jnp.add`); the
    authors' code, and so the default, multiplies them.
    """
    channel = scope["channel"]
    pooled = linear(channel["fc1"], ops.global_avg_pool(x), hidden)
    gates = linear(channel["fc2"], act(norm(channel["norm"], pooled)), x.shape[-1])

    spatial = scope["spatial"]
    y = act(norm(spatial["norm1"], conv(spatial["conv1"], x, hidden, kernel_size=1)))
    for i in (2, 3):
        y = conv(spatial[f"conv{i}"], y, hidden, kernel_size=3, dilation=dilation)
        y = act(norm(spatial[f"norm{i}"], y))
    y = conv(spatial["conv4"], y, 1, kernel_size=1)
    return x * (1 + jax.nn.sigmoid(combine(gates[:, None, None], y)))
