from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel


@kernel
def cbam_channel_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    act: Callable = relu,
    gate: Callable = jax.nn.sigmoid,
    bias: bool = False,
) -> Float[Array, "b h w c"]:
    """Multiply each channel by a gate: the sum of a two-layer network's outputs for its spatial mean and its maximum.

    Paths: `fc1`, `fc2`, two 1x1 convolutions. Woo et al., "CBAM: Convolutional Block Attention Module" (2018), eq. 2.
    """
    pooled = jnp.stack([ops.global_avg_pool(x), ops.global_max_pool(x)], axis=1)[:, :, None]  # as a map of 2x1
    y = act(conv(scope["fc1"], pooled, hidden, kernel_size=1, bias=bias))
    y = conv(scope["fc2"], y, x.shape[-1], kernel_size=1, bias=bias)
    return x * gate(jnp.sum(y, axis=1, keepdims=True))


@kernel
def cbam_spatial_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    kernel_size: int = 7,
    norm: Callable = batch_norm,
    gate: Callable = jax.nn.sigmoid,
) -> Float[Array, "b h w c"]:
    """Multiply each position by a gate: a convolution of the channels' mean and maximum there.

    Paths: `conv/conv`, without a bias, and `conv/bn`. Woo et al., "CBAM: Convolutional Block Attention Module" (2018),
    eq. 3.
    """
    pooled = jnp.stack([jnp.mean(x, axis=-1), jnp.max(x, axis=-1)], axis=-1)
    y = conv(scope["conv"]["conv"], pooled, 1, kernel_size=kernel_size, bias=False)
    return x * gate(norm(scope["conv"]["bn"], y))


@kernel
def cbam(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    kernel_size: int = 7,
    norm: Callable = batch_norm,
    act: Callable = relu,
    gate: Callable = jax.nn.sigmoid,
) -> Float[Array, "b h w c"]:
    """Convolutional block attention module: channel attention (path `channel`), then spatial (path `spatial`).

    Woo et al., "CBAM: Convolutional Block Attention Module" (2018), section 3; as timm's `CbamModule`.
    """
    x = cbam_channel_attention(scope["channel"], x, hidden=hidden, act=act, gate=gate)
    return cbam_spatial_attention(scope["spatial"], x, kernel_size=kernel_size, norm=norm, gate=gate)
