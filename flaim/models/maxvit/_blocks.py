"""The blocks: convolutional ones, transformer blocks, and those that consist of both."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import (
    Scope,
    batch_norm,
    block_attention,
    conv,
    drop_path,
    gelu,
    grid_attention,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    ops,
    relative_position_table,
    resolve_padding,
    squeeze_excite,
)
from flaim_core.checks import check_heads

normal_init = initializers.truncated_normal(0.02)

pointwise = partial(conv, kernel_size=1, kernel_init=normal_init)


def average_pool(x: Float[Array, "b h w c"], padding: str | None = None) -> Float[Array, "b h2 w2 c"]:
    """2x2 average pooling of stride 2; under "same" padding zeros complete an odd side."""
    pads = resolve_padding(padding or 0, (x.shape[1], x.shape[2]), (2, 2), (2, 2))
    return ops.avg_pool(x, (2, 2), (2, 2), pads)


def max_pool(x: Float[Array, "b h w c"], padding: str | None = None) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 2."""
    return ops.max_pool(x, (3, 3), (2, 2), resolve_padding(padding, (x.shape[1], x.shape[2]), (3, 3), (2, 2)))


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    pool: Callable = average_pool,
    padding: Literal["same"] | None = None,
    bias: bool = True,
) -> Float[Array, "b h2 w2 f"]:
    """Pooling, and a 1x1 convolution (path `expand`) where the width changes."""
    x = pool(x, padding)
    return x if x.shape[-1] == features else pointwise(scope["expand"], x, features, bias=bias)


@kernel
def inverted_bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    size: ops.Sizes | None = None,
    norm: Callable = batch_norm,
    act: Callable = gelu,
    act_first: bool = False,
    expand_input: bool = False,
    bias: bool = True,
    padding: Literal["same"] | None = None,
    pool: Callable = average_pool,
    pool_stride: bool = False,
    se_ratio: float = 1 / 16,
    se_act: Callable = jax.nn.silu,
    se_early: bool = False,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Pre-norm MBConv: a norm, then 1x1, depthwise 3x3 and 1x1 convolutions around a four times wider middle.

    Tu et al. (2022), appendix A.

    Args:
        act_first: An activation follows the first norm too.
        expand_input: The middle is four times as wide as the input instead of the output.
        bias: Of the last convolution and of the shortcut's.
        pool: The shortcut's pooling.
        pool_stride: The branch is halved by average pooling instead of the depthwise convolution's stride.
        se_ratio: Hidden width of the squeeze-and-excitation as a part of the middle's.
        se_early: The squeeze-and-excitation (path `se_early` instead of `se`) precedes the depthwise's norm.
    """
    hidden = 4 * (x.shape[-1] if expand_input else features)
    attend = partial(squeeze_excite, hidden=int(hidden * se_ratio), act=se_act)
    y = norm(scope["pre_norm"], x)
    y = act(y) if act_first else y
    if stride > 1:
        x = shortcut(scope["shortcut"], x, features, pool=pool, padding=padding, bias=bias)
        if pool_stride:
            y, stride = average_pool(y, padding), 1
    y = act(norm(scope["norm1"], conv(scope["conv1_1x1"], y, hidden, kernel_size=1, bias=False)))
    y = conv(
        scope["conv2_kxk"],
        y,
        hidden,
        kernel_size=3,
        stride=stride,
        padding=padding,
        groups=hidden,
        bias=False,
        kernel_init=initializers.he_normal,
    )
    y = attend(scope["se_early"], y) if se_early else y
    y = act(norm(scope["norm2"], y))
    y = y if se_early else attend(scope["se"], y)
    y = conv(scope["conv3_1x1"], y, features, kernel_size=1, bias=bias)
    return x + drop_path(scope["drop_path"], y, drop_path_rate)


@kernel
def feed_forward(
    scope: Scope, x: Float[Array, "b h w c"], *, act: Callable, dense: Callable
) -> Float[Array, "b h w c"]:
    """Two pointwise layers, four times as wide between them."""
    return dense(scope["fc2"], act(dense(scope["fc1"], x, 4 * x.shape[-1])), x.shape[-1])


@kernel
def convnext_block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    size: ops.Sizes | None = None,
    layer_scale_init: float = 1e-6,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Depthwise 7x7 convolution, norm, two pointwise layers. Liu et al., "A ConvNet for the 2020s" (2022)."""
    options: dict = dict(kernel_size=7, stride=stride, groups=x.shape[-1], kernel_init=normal_init)
    y = layer_norm(scope["norm"], conv(scope["conv_dw"], x, features, **options))
    y = feed_forward(scope["mlp"], y, act=gelu, dense=pointwise)
    y = drop_path(scope["drop_path"], layer_scale(scope["ls"], y, init_value=layer_scale_init), drop_path_rate)
    return y + (x if stride == 1 else shortcut(scope["shortcut"], x, features))


def globally(scope: Scope, x: Array, features: int, *, size, **options) -> Array:
    """Attention of all tokens to all."""
    return block_attention(scope["attn"], x, features, size=(x.shape[1], x.shape[2]), **options)


def in_blocks(scope: Scope, x: Array, features: int, *, size, **options) -> Array:
    """Attention within blocks of neighbouring tokens."""
    return block_attention(scope["attn"], x, features, size=size, **options)


def in_grids(scope: Scope, x: Array, features: int, *, size, **options) -> Array:
    """Attention within grids that span the map."""
    return grid_attention(scope["attn"], x, features, size=size, **options)


def in_both(scope: Scope, x: Array, features: int, *, size, **options) -> Array:
    """Attention within blocks and, side by side, within grids; each puts out half of the channels."""
    blocks = block_attention(scope["attn_block"], x, features // 2, size=size, **options)
    return jnp.concatenate([blocks, grid_attention(scope["attn_grid"], x, features // 2, size=size, **options)], -1)


@kernel
def transformer(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    attend: Callable,
    stride: int = 1,
    size: ops.Sizes,
    position_bias: Callable = relative_position_table,
    head_dim: int = 32,
    heads_first: bool = True,
    expand_input: bool = False,
    dense: Callable = linear,
    pool: Callable = average_pool,
    shortcut_bias: bool = True,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    layer_scale_init: float | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Pre-norm transformer block on a feature map: attention, then an MLP.

    Args:
        attend: The kind of attention: `globally`, `in_blocks`, `in_grids` or `in_both`.
        expand_input: Queries, keys and values are as wide as the input instead of the output.
        dense: `pointwise` where the dense layers' kernels are stored as 1x1 convolutions.
        pool: How a strided block halves its shortcut and its normalised input.
    """

    def add(x, i, y):
        if layer_scale_init is not None:
            y = layer_scale(scope[f"ls{i}"], y, init_value=layer_scale_init)
        return x + drop_path(scope[f"drop_path{i}"], y, drop_path_rate)

    dim = x.shape[-1] if expand_input else features
    if dim < head_dim:
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} is smaller than a head, {head_dim}")
    check_heads(scope, dim, dim // head_dim)
    if stride > 1:
        y = pool(norm(scope["norm1"]["norm"], x))
        x = shortcut(scope["shortcut"], x, features, pool=pool, bias=shortcut_bias)
    else:
        y = norm(scope["norm1"], x)
    options = dict(position_bias=position_bias, heads_first=heads_first, dense=dense)
    x = add(x, 1, attend(scope, y, features, num_heads=dim // head_dim, dim=dim, size=size, **options))
    return add(x, 2, feed_forward(scope["mlp"], norm(scope["norm2"], x), act=act, dense=dense))


@kernel
def maxvit_block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    size: ops.Sizes,
    convolve: Callable = inverted_bottleneck,
    transform: Callable = transformer,
    grids_only: bool = False,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution, attention within blocks (not with `grids_only`, as in MaxxViT-V2), attention within grids."""
    x = convolve(scope["conv"], x, features, stride=stride, drop_path_rate=drop_path_rate)
    options = dict(size=size, drop_path_rate=drop_path_rate)
    if not grids_only:
        x = transform(scope["attn_block"], x, features, attend=in_blocks, **options)
    return transform(scope["attn_grid"], x, features, attend=in_grids, **options)


@kernel
def parallel_block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    size: ops.Sizes,
    convolve: Callable = inverted_bottleneck,
    transform: Callable = transformer,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Two convolutions, then one transformer block with attention within blocks and within grids side by side."""
    x = convolve(scope["conv"][0], x, features, stride=stride, drop_path_rate=drop_path_rate)
    x = convolve(scope["conv"][1], x, features, drop_path_rate=drop_path_rate)
    return transform(scope["attn"], x, features, attend=in_both, size=size, drop_path_rate=drop_path_rate)
