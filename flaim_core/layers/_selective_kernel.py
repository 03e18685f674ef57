import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel


def weighted_sum(maps: Sequence[Float[Array, "b h w c"]], logits: Float[Array, "b 1 1 n c"]) -> Float[Array, "b h w c"]:
    """The sum of `n` maps, each channel weighted by the softmax of its `logits` over the maps."""
    weights = jax.nn.softmax(ops.at_least_float32(logits), axis=3).astype(logits.dtype)
    return functools.reduce(jnp.add, (x * weights[..., i, :] for i, x in enumerate(maps)))


@kernel
def selective_kernel(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    hidden: int,
    dilations: Sequence[int] = (1, 2),
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    split_input: bool = False,
    bias: bool = False,
    norm: Callable = batch_norm,
    act: Callable = relu,
    anti_alias: Callable | None = None,
) -> Float[Array, "b h2 w2 f"]:
    """Convolutions of several dilations, and for each channel a weighted sum of their outputs.

    Paths: `paths/0`, `paths/1`, ..., one for each dilation: `conv`, `bn` and activation. The weights are a softmax over
    the paths; their logits are a two-layer network of the spatial means of the paths' sum: `attn/fc_reduce` to
    `hidden`, `attn/bn`, activation, `attn/fc_select`. Li et al., "Selective Kernel Networks" (2019).

    Args:
        dilations: A 3x3 kernel of dilation 2 has the field of view of a 5x5 kernel.
        split_input: Each path sees its own part of the input's channels, and not all of them.
        bias: The convolutions in the paths have biases.
        anti_alias: A function that halves a map. If the stride is not 1, the convolutions then have stride 1, and this
            function is applied after the activations.
    """
    blur = anti_alias if stride > 1 else None
    options: dict = dict(kernel_size=kernel_size, stride=1 if blur else stride, groups=groups, bias=bias)
    if split_input and x.shape[-1] % len(dilations):
        raise ValueError(f"{'/'.join(scope.path)}: width {x.shape[-1]} does not divide into {len(dilations)} paths")
    inputs = jnp.split(x, len(dilations), axis=-1) if split_input else [x] * len(dilations)
    maps = []
    for i, (part, dilation) in enumerate(zip(inputs, dilations)):
        path = scope["paths"][i]
        y = act(norm(path["bn"], conv(path["conv"], part, features, dilation=dilation, **options)))
        maps.append(blur(y) if blur else y)

    attn = scope["attn"]
    means = functools.reduce(jnp.add, map(ops.global_avg_pool, maps))[:, None, None]
    reduced = act(norm(attn["bn"], conv(attn["fc_reduce"], means, hidden, kernel_size=1, bias=False)))
    logits = conv(attn["fc_select"], reduced, len(maps) * features, kernel_size=1, bias=False)
    return weighted_sum(maps, ops.split_axis(logits, 3, features))
