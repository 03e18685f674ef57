import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.scope import Scope, kernel


@kernel
def squeeze_excite(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    act: Callable = relu,
    gate: Callable = jax.nn.sigmoid,
    names: tuple[str, str] = ("fc1", "fc2"),
    bias: bool = True,
) -> Float[Array, "b h w c"]:
    """Multiply each channel by a gate: a two-layer network of all channels' spatial means.

    `names` are the paths of the two 1x1 convolutions. Hu et al., "Squeeze-and-Excitation Networks" (2018).
    """
    squeezed = ops.global_avg_pool(x)[:, None, None]
    excited = conv(scope[names[0]], squeezed, hidden, kernel_size=1, bias=bias)
    return x * gate(conv(scope[names[1]], act(excited), x.shape[-1], kernel_size=1, bias=bias))


@kernel
def efficient_channel_attention(
    scope: Scope, x: Float[Array, "b h w c"], *, kernel_size: int | None = None
) -> Float[Array, "b h w c"]:
    """Multiply each channel by a gate: a one-dimensional convolution over the channels' spatial means.

    Leaf: `conv/kernel` (kernel_size, 1, 1). `kernel_size` is by default `int(abs(log2(channels) + 1) / 2)`, plus 1 if
    that is even, and at least 3. Wang et al., "ECA-Net" (2020).
    """
    if kernel_size is None:
        size = int(abs(math.log2(x.shape[-1]) + 1) / 2)
        kernel_size = max(size if size % 2 else size + 1, 3)
    weight = scope["conv"].param("kernel", (kernel_size, 1, 1), initializers.lecun_normal, layout="wio")
    means = ops.global_avg_pool(x)
    padded = jnp.pad(means, ((0, 0), (kernel_size // 2, kernel_size // 2)))
    mixed = sum(padded[:, i : i + x.shape[-1]] * weight[i, 0, 0] for i in range(kernel_size))
    return x * jax.nn.sigmoid(mixed)[:, None, None]
