"""MaxViT and its relatives: CoAtNet, CoAtNeXt, MaxxViT; convolutions first, then attention to all of a map.

Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes" (2021): stages of inverted bottlenecks,
then stages of transformer blocks that attend globally. Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022): every
block is an inverted bottleneck, attention within blocks of neighbouring tokens, attention within grids that span the
map. The reference implementation is timm's `maxxvit.py`. Its `tf` models are the paper's; its `rw` models differ in
activation, in where a bottleneck is wide and in the reduction of its squeeze-and-excitation; its `rmlp` models compute
the relative position bias by a small network; "CoAtNeXt" and "MaxxViT" have ConvNeXt blocks as convolutions.

Every kind of block takes `size`, height and width of MaxViT's blocks and grids, whether it has a use for it or not.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    batch_norm,
    block_attention,
    classifier,
    conv,
    drop_path,
    gelu,
    gelu_tanh,
    grid_attention,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    ops,
    relative_position_map,
    relative_position_mlp,
    relative_position_table,
    relu,
    resolve_padding,
    squeeze_excite,
)
from flaim_core.checks import check_heads, per_stage

silu = jax.nn.silu

_NORMAL = initializers.truncated_normal(0.02)

pointwise = partial(conv, kernel_size=1, kernel_init=_NORMAL)


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
    padding: str | None = None,
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
    padding: str | None = None,
    pool: Callable = average_pool,
    pool_stride: bool = False,
    se_ratio: float = 1 / 16,
    se_act: Callable = silu,
    se_early: bool = False,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Pre-norm MBConv: a norm, then 1x1, depthwise 3x3 and 1x1 convolutions around a four times wider middle.

    Tu et al. (2022), appendix A.

    Args:
        act_first: An activation follows the first norm too.
        expand_input: The middle is four times as wide as the input instead of the output.
        bias: Of the last convolution and the shortcut's.
        pool: The shortcut's pooling.
        pool_stride: The branch is halved by average pooling instead of the depthwise convolution's stride.
        se_ratio: Hidden width of the squeeze-and-excitation, of the middle's.
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
    options = dict(
        kernel_size=3, stride=stride, padding=padding, groups=hidden, bias=False, kernel_init=initializers.he_normal
    )
    y = conv(scope["conv2_kxk"], y, hidden, **options)
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
    options = dict(kernel_size=7, stride=stride, groups=x.shape[-1], kernel_init=_NORMAL)
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
        attend: To what tokens attend: `globally`, `in_blocks`, `in_grids` or `in_both`.
        expand_input: Queries, keys and values are as wide as the input instead of the output.
        dense: `pointwise` where the dense layers' kernels are stored as 1x1 convolutions.
        pool: With which a strided block halves its shortcut and its normalised input.
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
    """Convolution, attention within blocks, attention within grids; MaxxViT-V2 leaves out the second."""
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


@kernel
def convolutional_stem(
    scope: Scope,
    x: Float[Array, "b h w c"],
    widths: Sequence[int],
    *,
    norm: Callable = batch_norm,
    act: Callable = gelu,
    bias: bool = False,
    padding: str | None = None,
) -> Float[Array, "b h2 w2 f"]:
    """Two 3x3 convolutions, the first strided."""
    x = conv(scope["conv1"], x, widths[0], kernel_size=3, stride=2, padding=padding, bias=bias)
    return conv(scope["conv2"], act(norm(scope["norm1"], x)), widths[1], kernel_size=3, padding=padding, bias=bias)


@kernel
def maxvit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    blocks: Sequence[Callable | Sequence[Callable]],
    depths: Sequence[int],
    dims: Sequence[int],
    stem_dims: Sequence[int],
    stem: Callable = convolutional_stem,
    norm: Callable = layer_norm,
    head_hidden: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Hybrid of convolutions and attention, of as many stages as there are `depths`.

    Blocks and grids are a 32nd of the image's height and width, so that most leaves of relative positions fit one
    image size alone.

    Args:
        n_classes: Positive: logits; -1: the classifier's input; 0: the last feature map.
        blocks: Each stage's kind of block, or the kinds of its first blocks, of which the last is that of the rest.
        stem_dims: Widths of the stem's two convolutions.
        norm: The norm before the classifier.
        head_hidden: Width of a hidden layer before the classifier. Without it the last feature map is normalised,
            with it the mean of the map.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    size = (ops.max_dim(x.shape[1] // 32, 1), ops.max_dim(x.shape[2] // 32, 1))
    x = stem(scope["stem"], x, tuple(stem_dims))
    scope.capture("stage_0", x)
    rates = iter(drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
    for stage, (depth, kinds, dim) in enumerate(per_stage(depths=depths, blocks=blocks, dims=dims)):
        kinds = (kinds,) if callable(kinds) else kinds
        for i in range(depth):
            block = kinds[min(i, len(kinds) - 1)]
            options = dict(stride=2 if i == 0 else 1, size=size, drop_path_rate=next(rates))
            x = scope["stages"][stage]["blocks"][i].call(block, x, dim, **options)
        scope.capture(f"stage_{stage + 1}", x)
    if head_hidden is None:
        x = norm(scope["norm"], x)
    if n_classes == 0:
        return x
    x, head = ops.global_avg_pool(x), scope["head"]
    if head_hidden is not None:
        x = jnp.tanh(linear(head["pre_logits"]["fc"], norm(head["norm"], x), head_hidden))
    return classifier(head["fc"], x, n_classes, drop_rate=drop_rate)


# What variants are put together from. timm's own models came in two generations, "coat" before "max".
_max_conv = partial(inverted_bottleneck, act=silu, expand_input=True, bias=False)
_se_conv = partial(inverted_bottleneck, act=silu, expand_input=True, se_ratio=1 / 4)
_coat_conv = partial(_max_conv, act_first=True, se_ratio=1 / 4, se_act=relu)
_coat_silu = partial(_coat_conv, se_act=silu)
_coat_early = partial(_coat_conv, se_early=True)
_coat_pool = partial(_coat_conv, pool_stride=True)
_coat_early_pool = partial(_coat_early, pool_stride=True)
_coat_max_pool = partial(_coat_early_pool, pool=max_pool)
_coatnext_conv = partial(convnext_block, layer_scale_init=1e-5)

_mlp_384 = partial(relative_position_mlp, hidden=384)
_mlp_bias = partial(transformer, position_bias=relative_position_mlp)
_mlp_bias_scaled = partial(_mlp_bias, layer_scale_init=1e-6)
_everywhere = dict(attend=globally, dense=pointwise)
_paper_global = partial(transformer, **_everywhere)
_global = partial(transformer, expand_input=True, **_everywhere)
_global_scaled = partial(_global, layer_scale_init=1e-6)
_global_lean = partial(_global, shortcut_bias=False)
_global_mlp = partial(_mlp_bias, expand_input=True, **_everywhere)
_global_mlp_scaled = partial(_global_mlp, layer_scale_init=1e-6)
_global_mlp_384 = partial(_global, position_bias=_mlp_384)
_global_max_pool = partial(_global_mlp_384, shortcut_bias=False, pool=max_pool)
_fine_batch_norm = partial(batch_norm, eps=1e-6)
_global_bn = partial(_global_lean, norm=_fine_batch_norm)

_rw_block = partial(maxvit_block, convolve=_max_conv)
_rmlp_block = partial(_rw_block, transform=_mlp_bias)
_rmlp_scaled = partial(_rw_block, transform=_mlp_bias_scaled)
_pm_block = partial(parallel_block, convolve=_max_conv)
_next_block = partial(maxvit_block, convolve=convnext_block, transform=_mlp_bias_scaled)
_next_grids = partial(_next_block, grids_only=True)
_next_table_grids = partial(_next_grids, transform=partial(transformer, layer_scale_init=1e-6))

_silu_stem = partial(convolutional_stem, act=silu)
_next_stem = partial(convolutional_stem, norm=layer_norm)

# The TensorFlow implementation's padding, epsilons and GELU.
_tf_batch_norm, _tf_layer_norm = partial(batch_norm, eps=1e-3), partial(layer_norm, eps=1e-5)
_tf_options: dict = dict(norm=_tf_batch_norm, act=gelu_tanh, padding="same")
_tf_stem = partial(convolutional_stem, bias=True, **_tf_options)
_tf_transformer = partial(
    transformer, position_bias=relative_position_map, heads_first=False, norm=_tf_layer_norm, act=gelu_tanh
)
_tf_block = partial(maxvit_block, convolve=partial(inverted_bottleneck, **_tf_options), transform=_tf_transformer)


def _variant(width, depths, stem_dims, *kinds, stem=_silu_stem, **config) -> dict:
    """A variant of four stages, each twice as wide as the one before, the first `width`; `kinds` share them evenly."""
    blocks = tuple(kind for kind in kinds for _ in range(4 // len(kinds)))
    dims = tuple(width * 2**i for i in range(4))
    return {"dims": dims, "depths": depths, "stem_dims": stem_dims, "blocks": blocks, "stem": stem, **config}


def _coatnet(width, depths, stem_width) -> dict:
    """The paper's CoAtNet."""
    kinds, options = (inverted_bottleneck, _paper_global), dict(stem=convolutional_stem, head_hidden=8 * width)
    return _variant(width, depths, (stem_width, stem_width), *kinds, **options)


def _maxvit(width, depths, stem_width) -> dict:
    """The paper's MaxViT."""
    options = dict(stem=_tf_stem, norm=_tf_layer_norm, head_hidden=8 * width)
    return _variant(width, depths, (stem_width, stem_width), _tf_block, **options)


def _next(width, depths, stem_dims, *kinds, **config) -> dict:
    """A variant with ConvNeXt blocks."""
    return _variant(width, depths, stem_dims, *kinds, stem=_next_stem, **config)


_SMALL, _MEDIUM, _LARGE, _HUGE = (1, 2, 3, 1), (2, 2, 5, 2), (2, 6, 14, 2), (2, 12, 28, 2)

# Name and image sizes.
_SIZED: dict[tuple[str, tuple[int, ...]], dict] = {
    ("coatnet_0", (224,)): _coatnet(96, (2, 3, 5, 2), 64),
    ("coatnet_1", (224,)): _coatnet(96, _LARGE, 64),
    ("coatnet_2", (224,)): _coatnet(128, _LARGE, 128),
    ("coatnet_3", (224,)): _coatnet(192, _LARGE, 192),
    ("coatnet_4", (224,)): _coatnet(192, _HUGE, 192),
    ("coatnet_5", (224,)): {**_coatnet(256, _HUGE, 192), "dims": (256, 512, 1280, 2048)},
    ("coatnet_pico_rw", (224,)): _variant(64, (2, 3, 5, 2), (32, 64), _se_conv, _global),
    ("coatnet_nano_rw", (224,)): _variant(64, (3, 4, 6, 3), (32, 64), partial(_se_conv, pool_stride=True), _global),
    ("coatnet_0_rw", (224,)): _variant(96, (2, 3, 7, 2), (32, 64), _coat_early_pool, _global_lean),
    ("coatnet_1_rw", (224,)): _variant(96, _LARGE, (32, 64), _coat_early, _global_lean),
    ("coatnet_2_rw", (224,)): _variant(128, _LARGE, (64, 128), _coat_silu, _global),
    ("coatnet_3_rw", (224,)): _variant(192, _LARGE, (96, 192), _coat_silu, _global_scaled, n_classes=11821),
    ("coatnet_bn_0_rw", (224,)): _variant(96, (2, 3, 7, 2), (32, 64), _coat_early, _global_bn, norm=_fine_batch_norm),
    ("coatnet_nano_cc", (224,)): _variant(64, (3, 4, 6, 3), (32, 64), _coat_pool, (_coat_pool, _global)),
    ("coatnet_rmlp_nano_rw", (224,)): _variant(64, (3, 4, 6, 3), (32, 64), _se_conv, _global_mlp_384),
    ("coatnet_rmlp_0_rw", (224,)): _variant(96, (2, 3, 7, 2), (32, 64), _coat_conv, _global_mlp),
    ("coatnet_rmlp_1_rw", (224,)): _variant(96, _LARGE, (32, 64), _coat_max_pool, _global_max_pool),
    ("coatnet_rmlp_1_rw2", (224,)): _variant(96, _LARGE, (32, 64), _coat_conv, _global_mlp),
    ("coatnet_rmlp_2_rw", (224, 384)): _variant(128, _LARGE, (64, 128), _coat_silu, _global_mlp_scaled),
    ("coatnet_rmlp_3_rw", (224,)): _variant(192, _LARGE, (96, 192), _coat_silu, _global_mlp_scaled),
    ("coatnext_nano_rw", (224,)): _next(64, (3, 4, 6, 3), (32, 64), _coatnext_conv, _global),
    ("maxvit_pico_rw", (256,)): _variant(32, _MEDIUM, (24, 32), _rw_block),
    ("maxvit_nano_rw", (256,)): _variant(64, _SMALL, (32, 64), _rw_block),
    ("maxvit_tiny_rw", (224, 256)): _variant(64, _MEDIUM, (32, 64), _rw_block),
    ("maxvit_tiny_pm", (256,)): _variant(64, _MEDIUM, (32, 64), _pm_block),
    ("maxvit_rmlp_pico_rw", (256,)): _variant(32, _MEDIUM, (24, 32), _rmlp_block),
    ("maxvit_rmlp_nano_rw", (256,)): _variant(64, _SMALL, (32, 64), _rmlp_block),
    ("maxvit_rmlp_tiny_rw", (256,)): _variant(64, _MEDIUM, (32, 64), _rmlp_block),
    ("maxvit_rmlp_small_rw", (224, 256)): _variant(96, _MEDIUM, (32, 64), _rmlp_scaled),
    ("maxvit_rmlp_base_rw", (224, 384)): _variant(96, _LARGE, (32, 64), _rmlp_block, head_hidden=768),
    ("maxxvit_rmlp_nano_rw", (256,)): _next(64, _SMALL, (32, 64), _next_block),
    ("maxxvit_rmlp_tiny_rw", (256,)): _next(64, _MEDIUM, (32, 64), _next_block),
    ("maxxvit_rmlp_small_rw", (256,)): _next(96, _MEDIUM, (48, 96), _next_block),
    ("maxxvitv2_nano_rw", (256,)): _next(96, _SMALL, (48, 96), _next_table_grids),
    ("maxxvitv2_rmlp_base_rw", (224, 384)): _next(128, (2, 6, 12, 2), (64, 128), _next_grids),
    ("maxxvitv2_rmlp_large_rw", (224,)): _next(160, (2, 6, 16, 2), (80, 160), _next_grids, head_hidden=1280),
    ("maxvit_tiny_tf", (224, 384, 512)): _maxvit(64, _MEDIUM, 64),
    ("maxvit_small_tf", (224, 384, 512)): _maxvit(96, _MEDIUM, 64),
    ("maxvit_base_tf", (224, 384, 512)): _maxvit(96, _LARGE, 64),
    ("maxvit_large_tf", (224, 384, 512)): _maxvit(128, _LARGE, 128),
    ("maxvit_xlarge_tf", (224, 384, 512)): _maxvit(192, _LARGE, 192),
}

VARIANTS = {
    f"{name}_{size}": {**config, "input_size": size} for (name, sizes), config in _SIZED.items() for size in sizes
}
VARIANTS["maxvit_xlarge_tf_224"]["n_classes"] = 21843
_TEST = {"dims": (32, 64, 96, 128), "stem_dims": (16, 32), "input_size": 160}
VARIANTS["test_maxvit"] = {**VARIANTS["maxvit_pico_rw_256"], **_TEST, "depths": (1, 1, 1, 1)}
VARIANTS["test_coatnet"] = {**VARIANTS["coatnet_nano_rw_224"], **_TEST, "depths": (1, 1, 2, 1)}

FAMILY = Family(
    maxvit,
    "head/fc",
    VARIANTS,
    choices={
        "average_pool": average_pool,
        "convnext_block": convnext_block,
        "convolutional_stem": convolutional_stem,
        "globally": globally,
        "in_blocks": in_blocks,
        "in_both": in_both,
        "in_grids": in_grids,
        "inverted_bottleneck": inverted_bottleneck,
        "max_pool": max_pool,
        "maxvit_block": maxvit_block,
        "parallel_block": parallel_block,
        "transformer": transformer,
        "_NORMAL": _NORMAL,
    },
    timm=Timm(("maxxvit",), fixed_input_size=True),
    tiny=("maxvit_tiny_tf_224", {"input_size": 64, "depths": (1, 1), "dims": (32, 64), "stem_dims": (16, 16)}),
)
