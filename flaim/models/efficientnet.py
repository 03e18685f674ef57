"""EfficientNet and the mobile networks it grew from: stacks of depthwise-separable, MBConv and fused MBConv blocks.

Tan and Le, "EfficientNet" (2019) and "EfficientNetV2" (2021); Howard et al., "MobileNets" (2017); Sandler et al.,
"MobileNetV2" (2018); Tan et al., "MnasNet" (2019); Wu et al., "FBNet" (2019); Stamoulis et al., "Single-Path NAS"
(2019); Tan and Le, "MixConv" (2019), MixNet; Yang et al., "CondConv" (2019); Gupta and Tan, "EfficientNet-EdgeTPU"
(2019); Han et al., "Model Rubik's Cube" (2020), TinyNet; Li et al., "Searching for Fast Model Families on Datacenter
Accelerators" (2021), EfficientNet-X; Akin et al., "Searching for Efficient Neural Architectures for On-Device ML on
Edge TPUs" (2022). The reference implementation is timm's `efficientnet.py`, whose three models with pruned channels are
left out. `fbnetc_100` has the epsilon its weights were trained with, 1e-3, which timm sets only where it loads them.

Keras' EfficientNets are the `tf_*` ones, its MobileNets are Keras' alone: `tf_mobilenetv1_*`. Its MobileNetV2s
(`mobilenetv2_130` is Keras' alone) have TensorFlow's padding and epsilon too: `padding="same"` and `norm_eps=1e-3`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    batch_norm,
    classifier,
    conditional_conv,
    conv,
    depthwise_separable,
    evo_norm,
    fused_mbconv,
    global_context,
    group_norm,
    kernel,
    layer_norm,
    linear,
    mbconv,
    mixed_conv,
    ops,
    relu,
    round_features,
)
from flaim_core.layers.stacks import Stack, Stages, run
from flaim_core.layers.stacks import conv as _conv
from flaim_core.layers.stacks import ds as _ds
from flaim_core.layers.stacks import mb as _mb
from flaim_core.layers.stacks import scale as _scale

relu6, silu = jax.nn.relu6, jax.nn.silu


@kernel
def conditional_mbconv(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, num_experts: int, **options
) -> Float[Array, "b h2 w2 f"]:
    """MBConv whose kernels are mixtures of `num_experts` experts', weighed by the input's mean (`routing_fn`)."""
    routing = jax.nn.sigmoid(linear(scope["routing_fn"], ops.global_avg_pool(x), num_experts))
    return mbconv(scope, x, features, convolution=partial(conditional_conv, routing=routing), **options)


@kernel
def space_to_depth_separable(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    se_ratio: float,
    norm: Callable = batch_norm,
    act: Callable = silu,
    **options,
) -> Float[Array, "b h2 w2 f"]:
    """A depthwise-separable block after a 2x2 convolution that trades half the resolution for four times the width.

    The depthwise kernel is 2x2, which covers 4x4 pixels of the input; `se_ratio` stays relative to the block's input.
    """
    x = conv(scope["conv_s2d"], x, 4 * x.shape[-1], kernel_size=2, stride=2, padding="same", bias=False)
    x = act(norm(scope["bn_s2d"], x))
    options |= {"kernel_size": 2, "padding": "same", "se_ratio": se_ratio / 4}
    return depthwise_separable(scope, x, features, norm=norm, act=act, **options)


@kernel
def efficientnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    stages: Sequence[Sequence[Stack]],
    stem_features: int = 32,
    stem_kernel_size: int = 3,
    head_features: int | None = 1280,
    depth_multiplier: int = 1,
    padding: int | tuple | str | None = None,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    act: Callable = silu,
    norm_act: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A strided convolution, stages of stacks of blocks, a 1x1 convolution and a classifier.

    Args:
        n_classes: Positive: logits; -1: pooled features; 0: the last feature map.
        stages: The stacks of each stage; what a stack's own options say goes before `padding`, `norm`, `act`, ...
        head_features: Width of the last convolution; None for none.
        depth_multiplier: Maps that depthwise convolutions make of each channel, where all blocks are
            depthwise-separable.
        padding, norm, act, norm_act, anti_alias: As in `flaim_core.mbconv`.
        norm_eps: Epsilon of all norms; None for the norm's own.
        drop_path_rate: The rate that growing linearly from 0 at the first block would reach one after the last.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    activate = norm_act or (lambda scope, x: act(norm(scope, x)))
    x = conv(scope["conv_stem"], x, stem_features, kernel_size=stem_kernel_size, stride=2, padding=padding, bias=False)
    x = activate(scope["bn1"], x)
    scope.capture("stage_0", x)

    shared: dict = dict(padding=padding, norm=norm, act=act, norm_act=norm_act, anti_alias=anti_alias)
    if depth_multiplier != 1:  # other blocks have no such option
        shared["depth_multiplier"] = depth_multiplier
    x = run(scope, x, stages, shared, drop_path_rate)
    if head_features is not None:
        x = activate(scope["bn2"], conv(scope["conv_head"], x, head_features, kernel_size=1, bias=False))
    return (
        x if n_classes == 0 else classifier(scope["classifier"], ops.global_avg_pool(x), n_classes, drop_rate=drop_rate)
    )


def _mix(depth, kernel_sizes, stride, expand_ratio, features, se_ratio, expand_parts, project_parts):
    """A row of MixNet: kernel sizes side by side, 1x1 convolutions in parts, swish where there is a gate."""
    expand, project = ((1,) * parts if parts > 1 else 1 for parts in (expand_parts, project_parts))
    options: dict = dict(convolution=mixed_conv, expand_kernel_size=expand, project_kernel_size=project)
    return _mb(depth, kernel_sizes, stride, expand_ratio, features, se_ratio, act=silu if se_ratio else relu, **options)


_fused = partial(_mb, block=fused_mbconv)


def _change(stages: Stages, block: Callable | None = None, **options) -> Stages:
    """`stages` with another block, or other options."""

    def change(stack: Stack) -> Stack:
        return replace(stack, block=block or stack.block, options=(*stack.options, *options.items()))

    return tuple(tuple(map(change, stage)) for stage in stages)


def _edge(width: float) -> Stages:
    """EfficientNet-EdgeTPU; its first block expands four times not what it gets but what its authors took for it."""
    (first,) = _fused(1, 3, 1, 4, 24, residual=False)
    expand_ratio = 4 * round_features(24 * width) / round_features(32 * width)
    return (
        (replace(first, first=(*first.first, ("expand_ratio", expand_ratio))),),
        _fused(2, 3, 2, 8, 32),
        _fused(4, 3, 2, 8, 48),
        _mb(5, 5, 2, 8, 96),
        _mb(4, 5, 1, 8, 144),
        _mb(2, 5, 2, 8, 192),
    )


def _v2(depths: Sequence[int], widths: Sequence[int], first: tuple | None = None) -> Stages:
    """EfficientNetV2 of four to seven stages."""
    rows = list(zip(depths, (1, 2, 2, 2, 1, 2, 1), (1, 4, 4, 4, 6, 6, 6), widths))
    first = first or _conv(depths[0], 3, 1, widths[0], residual=True)
    fused = [_fused(depth, 3, stride, expand_ratio, width) for depth, stride, expand_ratio, width in rows[1:3]]
    others = [_mb(depth, 3, stride, expand_ratio, width, 0.25) for depth, stride, expand_ratio, width in rows[3:]]
    return (first, *fused, *others)


def _edgetpu_v2(widths: Sequence[int], group_size: int) -> Stages:
    a, b, c, d, e, f, g = widths
    grouped = partial(_fused, group_size=group_size)
    return (
        _conv(1, 1, 1, a),
        _fused(1, 3, 2, 8, b) + grouped(1, 3, 1, 4, b),
        _fused(1, 3, 2, 8, c) + grouped(1, 3, 1, 4, c) + _fused(1, 3, 1, 4, c) + grouped(1, 3, 1, 4, c),
        _fused(1, 3, 2, 8, d) + _mb(3, 3, 1, 4, d),
        _mb(1, 3, 1, 8, e) + _mb(3, 3, 1, 4, e),
        _mb(1, 3, 2, 8, f) + _mb(3, 3, 1, 4, f),
        _mb(1, 3, 1, 8, g),
    )


# Columns: depth, kernel size, stride of the first block, expansion (not of `_ds` and `_conv`), width, and
# squeeze-and-excitation's ratio where there is one; of `_mix` also the parts of both 1x1 convolutions. `+` joins stacks
# of one stage.
# fmt: off
_B0 = (
    _ds(1, 3, 1, 16, 0.25), _mb(2, 3, 2, 6, 24, 0.25), _mb(2, 5, 2, 6, 40, 0.25), _mb(3, 3, 2, 6, 80, 0.25),
    _mb(3, 5, 1, 6, 112, 0.25), _mb(4, 5, 2, 6, 192, 0.25), _mb(1, 3, 1, 6, 320, 0.25),
)
_MOBILENET_V1 = tuple(
    _ds(depth, 3, stride, features, residual=False, activate_output=True)
    for depth, stride, features in ((1, 1, 64), (2, 2, 128), (2, 2, 256), (6, 2, 512), (2, 2, 1024))
)
# Keras pads a strided depthwise convolution at the bottom and right, be the map's side even or odd.
_TF_MOBILENET_V1 = tuple(
    (replace(stack, first=(*stack.first, ("padding", ((0, 1), (0, 1))))),) if i > 0 else (stack,)
    for i, (stack,) in enumerate(_MOBILENET_V1)
)
_MOBILENET_V2 = (
    _ds(1, 3, 1, 16), _mb(2, 3, 2, 6, 24), _mb(3, 3, 2, 6, 32), _mb(4, 3, 2, 6, 64), _mb(3, 3, 1, 6, 96),
    _mb(3, 3, 2, 6, 160), _mb(1, 3, 1, 6, 320),
)
_MNASNET_A1 = (
    _ds(1, 3, 1, 16, residual=False), _mb(2, 3, 2, 6, 24), _mb(3, 5, 2, 3, 40, 0.25), _mb(4, 3, 2, 6, 80),
    _mb(2, 3, 1, 6, 112, 0.25), _mb(3, 5, 2, 6, 160, 0.25), _mb(1, 3, 1, 6, 320),
)
_MNASNET_B1 = (
    _ds(1, 3, 1, 16, residual=False), _mb(3, 3, 2, 3, 24), _mb(3, 5, 2, 3, 40), _mb(3, 5, 2, 6, 80),
    _mb(2, 3, 1, 6, 96), _mb(4, 5, 2, 6, 192), _mb(1, 3, 1, 6, 320, residual=False),
)
_MNASNET_SMALL = (
    _ds(1, 3, 1, 8), _mb(1, 3, 2, 3, 16), _mb(2, 3, 2, 6, 16), _mb(4, 5, 2, 6, 32, 0.25), _mb(3, 3, 1, 6, 32, 0.25),
    _mb(3, 5, 2, 6, 88, 0.25), _mb(1, 3, 1, 6, 144),
)
_FBNET_C = (
    _mb(1, 3, 1, 1, 16),
    _mb(1, 3, 2, 6, 24) + _mb(2, 3, 1, 1, 24),
    _mb(1, 5, 2, 6, 32) + _mb(1, 5, 1, 3, 32) + _mb(1, 5, 1, 6, 32) + _mb(1, 3, 1, 6, 32),
    _mb(1, 5, 2, 6, 64) + _mb(1, 5, 1, 3, 64) + _mb(2, 5, 1, 6, 64),
    _mb(3, 5, 1, 6, 112) + _mb(1, 5, 1, 3, 112), _mb(4, 5, 2, 6, 184), _mb(1, 3, 1, 6, 352),
)
_SPNASNET = (
    _ds(1, 3, 1, 16, residual=False), _mb(3, 3, 2, 3, 24), _mb(1, 5, 2, 6, 40) + _mb(3, 3, 1, 3, 40),
    _mb(1, 5, 2, 6, 80) + _mb(3, 3, 1, 3, 80), _mb(1, 5, 1, 6, 96) + _mb(3, 5, 1, 3, 96), _mb(4, 5, 2, 6, 192),
    _mb(1, 3, 1, 6, 320, residual=False),
)
_MIXNET_S = (
    _ds(1, 3, 1, 16),
    _mix(1, 3, 2, 6, 24, 0, 2, 2) + _mix(1, 3, 1, 3, 24, 0, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 40, 0.5, 1, 1) + _mix(3, (3, 5), 1, 6, 40, 0.5, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 80, 0.25, 1, 2) + _mix(2, (3, 5), 1, 6, 80, 0.25, 1, 2),
    _mix(1, (3, 5, 7), 1, 6, 120, 0.5, 2, 2) + _mix(2, (3, 5, 7, 9), 1, 3, 120, 0.5, 2, 2),
    _mix(1, (3, 5, 7, 9, 11), 2, 6, 200, 0.5, 1, 1) + _mix(2, (3, 5, 7, 9), 1, 6, 200, 0.5, 1, 2),
)
_MIXNET_M = (
    _ds(1, 3, 1, 24),
    _mix(1, (3, 5, 7), 2, 6, 32, 0, 2, 2) + _mix(1, 3, 1, 3, 32, 0, 2, 2),
    _mix(1, (3, 5, 7, 9), 2, 6, 40, 0.5, 1, 1) + _mix(3, (3, 5), 1, 6, 40, 0.5, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 80, 0.25, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 6, 80, 0.25, 2, 2),
    _mix(1, 3, 1, 6, 120, 0.5, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 3, 120, 0.5, 2, 2),
    _mix(1, (3, 5, 7, 9), 2, 6, 200, 0.5, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 6, 200, 0.5, 1, 2),
)
_EDGETPU = (
    _conv(1, 1, 1, 16),
    _fused(1, 3, 2, 8, 32) + _fused(3, 3, 1, 4, 32), _fused(1, 3, 2, 8, 48) + _fused(3, 3, 1, 4, 48),
    _mb(1, 3, 2, 8, 96) + _mb(3, 3, 1, 4, 96), _mb(1, 3, 1, 8, 96, residual=False) + _mb(3, 3, 1, 4, 96),
    _mb(1, 5, 2, 8, 160) + _mb(3, 5, 1, 4, 160), _mb(1, 3, 1, 8, 192),
)
_V2_BASE = _v2((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192))
_V2_S = _v2((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256))
_V2_M = _v2((3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512))
_V2_L = _v2((4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640))
_V2_XL = _v2((4, 8, 8, 16, 24, 32, 8), (32, 64, 96, 192, 256, 512, 640))
# Drawn from the paper before its code came out.
_V2_RW = _v2((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 272), first=_fused(2, 3, 1, 1, 24))
_TEST = (*_v2((1, 1, 1, 1), (16, 24, 32, 48)), _mb(1, 3, 2, 4, 64, 0.25))
# fmt: on
_B0_GROUPS_OF_8, _B0_GROUPS_OF_16 = _change(_B0, group_size=8), _change(_B0, group_size=16)
_LITE = _change(_B0, se_ratio=0.0)
_4_EXPERTS, _8_EXPERTS = ((*_B0[:4], *_change(_B0[4:], conditional_mbconv, num_experts=n)) for n in (4, 8))
_V2_S_GLOBAL_CONTEXT = (*_V2_S[:3], *_change(_V2_S[3:], channel_attention=global_context))


def _efficientnet_x(width: float, depth: float, expand: int) -> Stages:
    early = (
        _ds(1, 3, 1, 16, 0.25),
        _fused(2, 3, 2, expand, 24, 0.25, act=relu),
        _fused(2, 5, 2, expand, 40, 0.25, act=relu),
        _mb(3, 3, 2, expand, 80, 0.25),
    )
    (first,), (second,), *others = _scale(early + _B0[4:], width, depth)
    # The first stage works on half the resolution, four times as wide; the next need not halve, and expands less.
    first = replace(first, features=4 * first.features)
    opening = replace(first, block=space_to_depth_separable, depth=1)
    second = replace(second, first=(("stride", 1), ("expand_ratio", expand / 4)))
    return ((opening, replace(first, depth=first.depth - 1)), (second,), *others)


def _variant(
    stages: Stages,
    width: float = 1.0,
    depth: float | tuple[float, ...] = 1.0,
    *,
    stem: int = 32,
    head: int | None = 1280,
    scale_stem: bool = True,
    scale_head: bool = True,
    round_width: Callable = round_features,
    round_depth: Callable = math.ceil,
    **config,
) -> dict:
    """A network scaled in width, that of its stem and head included unless said otherwise, and depth."""
    return {
        "stages": _scale(stages, width, depth, round_width, round_depth),
        "stem_features": round_width(stem * width) if scale_stem else stem,
        "head_features": round_width(head * width) if scale_head and head else head,
        **config,
    }


def _fixed_ends(stages: Stages, width: float, depth: float, **config) -> dict:
    """A network whose stem, head, and depths of the first and last stage are not scaled."""
    depths = (1.0, *[depth] * (len(stages) - 2), 1.0)
    return _variant(stages, width, depths, scale_stem=False, scale_head=False, act=relu6, **config)


_TF: dict = {
    "padding": "same",
    "norm": partial(batch_norm, eps=1e-3),
}  # what networks converted from TensorFlow keep of it
_GROUP_NORM_8, _GROUP_NORM_16 = partial(group_norm, group_size=8), partial(group_norm, group_size=16)
_RELU = partial(_variant, act=relu)
_MNASNET = partial(_RELU, scale_head=False)
_MOBILENET = partial(_variant, scale_head=False, act=relu6)
_MIXNET = partial(_RELU, head=1536, scale_head=False, round_depth=round)
_TINYNET = partial(_variant, _B0, scale_stem=False, scale_head=False, round_depth=round)
_V2_NET = partial(_variant, stem=24)
_V2_BASE_NET = partial(
    _variant, _V2_BASE, round_width=partial(round_features, at_least=0.0), padding="same", norm=_TF["norm"]
)
_B3_IN_16S: dict = {"width": 1.2, "depth": 1.4, "round_width": partial(round_features, multiple=16), "input_size": 288}
_EDGETPU_WIDE = partial(_RELU, stem=64, stem_kernel_size=5)
_TEST_NET = partial(_variant, _TEST, stem=24, head=256, input_size=160)

# Width, depth, input size of timm's own, input size of those converted from TensorFlow.
_COMPOUND = {
    "b0": (1.0, 1.0, 224, 224),
    "b1": (1.0, 1.1, 240, 240),
    "b2": (1.1, 1.2, 256, 260),
    "b3": (1.2, 1.4, 288, 300),
    "b4": (1.4, 1.8, 320, 380),
    "b5": (1.6, 2.2, 448, 456),
    "b6": (1.8, 2.6, 528, 528),
    "b7": (2.0, 3.1, 600, 600),
    "b8": (2.2, 3.6, 672, 672),
    "l2": (4.3, 5.3, 800, 475),
}
# Networks that exist both as timm's own and converted from TensorFlow, the latter as `tf_*`.
_BOTH = {
    "efficientnet_es": _RELU(_edge(1.0)),
    "efficientnet_em": _RELU(_edge(1.0), 1.0, 1.1, input_size=240),
    "efficientnet_el": _RELU(_edge(1.2), 1.2, 1.4, input_size=300),
    "efficientnet_cc_b0_4e": _variant(_4_EXPERTS),
    "efficientnet_cc_b0_8e": _variant(_8_EXPERTS),
    "efficientnet_cc_b1_8e": _variant(_8_EXPERTS, 1.0, 1.1, input_size=240),
    "efficientnet_lite0": _fixed_ends(_LITE, 1.0, 1.0),
    "efficientnet_lite1": _fixed_ends(_LITE, 1.0, 1.1, input_size=240),
    "efficientnet_lite2": _fixed_ends(_LITE, 1.1, 1.2, input_size=260),
    "efficientnet_lite3": _fixed_ends(_LITE, 1.2, 1.4, input_size=300),
    "efficientnet_lite4": _fixed_ends(_LITE, 1.4, 1.8, input_size=380),
    "mixnet_s": _MIXNET(_MIXNET_S, stem=16),
    "mixnet_m": _MIXNET(_MIXNET_M, stem=24),
    "mixnet_l": _MIXNET(_MIXNET_M, 1.3, stem=24),
}

VARIANTS = {
    **{f"mnasnet_{name}": _MNASNET(_MNASNET_B1, int(name) / 100) for name in ("050", "075", "100", "140")},
    **{f"semnasnet_{name}": _MNASNET(_MNASNET_A1, int(name) / 100) for name in ("050", "075", "100", "140")},
    "mnasnet_small": _MNASNET(_MNASNET_SMALL, stem=8),
    "mobilenetv1_100": _MOBILENET(_MOBILENET_V1, head=None),
    "mobilenetv1_100h": _MOBILENET(_MOBILENET_V1, head=1024),
    "mobilenetv1_125": _MOBILENET(_MOBILENET_V1, 1.25, head=None),
    **{
        f"tf_mobilenetv1_{name}": _MOBILENET(_TF_MOBILENET_V1, int(name) / 100, head=None, **_TF)
        for name in ("025", "050", "075", "100")
    },
    **{f"mobilenetv2_{name}": _MOBILENET(_MOBILENET_V2, int(name) / 100) for name in ("035", "050", "075", "100")},
    "mobilenetv2_110d": _fixed_ends(_MOBILENET_V2, 1.1, 1.2),
    "mobilenetv2_120d": _fixed_ends(_MOBILENET_V2, 1.2, 1.4),
    "mobilenetv2_130": _MOBILENET(_MOBILENET_V2, 1.3, head=1664),
    "mobilenetv2_140": _MOBILENET(_MOBILENET_V2, 1.4, head=1792),
    "fbnetc_100": _RELU(_FBNET_C, stem=16, head=1984, norm=_TF["norm"]),
    "spnasnet_100": _MNASNET(_SPNASNET),
    **{f"efficientnet_{name}": _variant(_B0, w, d, input_size=size) for name, (w, d, size, _) in _COMPOUND.items()},
    "efficientnet_b0_gn": _variant(_B0, norm=_GROUP_NORM_8),
    "efficientnet_b0_g8_gn": _variant(_B0_GROUPS_OF_8, norm=_GROUP_NORM_8),
    "efficientnet_b0_g16_evos": _variant(_B0_GROUPS_OF_16, round_width=_B3_IN_16S["round_width"]),
    "efficientnet_b3_gn": _variant(_B0, norm=_GROUP_NORM_16, **_B3_IN_16S),
    "efficientnet_b3_g8_gn": _variant(_B0_GROUPS_OF_8, norm=_GROUP_NORM_16, **_B3_IN_16S),
    "efficientnet_blur_b0": _variant(_B0, anti_alias=partial(ops.blur_pool, border="constant")),
    **_BOTH,
    "efficientnet_es_pruned": _BOTH["efficientnet_es"],
    "efficientnet_el_pruned": _BOTH["efficientnet_el"],
    "efficientnet_x_b3": _variant(_efficientnet_x(1.2, 1.4, 6), stem=40, head=1536, input_size=288),
    "efficientnet_x_b5": _variant(_efficientnet_x(1.6, 2.2, 6), stem=48, head=2048, input_size=448),
    "efficientnet_h_b5": _variant(_efficientnet_x(1.92, 2.2, 4), stem=64, head=2456, input_size=448),
    "efficientnetv2_rw_t": _V2_NET(_V2_S, 0.8, 0.9),
    "gc_efficientnetv2_rw_t": _V2_NET(_V2_S_GLOBAL_CONTEXT, 0.8, 0.9),
    "efficientnetv2_rw_s": _V2_NET(_V2_RW, head=1792, input_size=288),
    "efficientnetv2_rw_m": _V2_NET(_V2_RW, 1.2, (1.2, 1.2, 1.2, 1.2, 1.6, 1.6), head=1792, input_size=320),
    "efficientnetv2_s": _V2_NET(_V2_S, input_size=288),
    "efficientnetv2_m": _V2_NET(_V2_M, input_size=320),
    "efficientnetv2_l": _variant(_V2_L, input_size=384),
    "efficientnetv2_xl": _variant(_V2_XL, input_size=384),
    **{
        f"tf_efficientnet_{name}": _variant(_B0, w, d, input_size=size, **_TF)
        for name, (w, d, _, size) in _COMPOUND.items()
    },
    **{f"tf_{name}": {**config, **_TF} for name, config in _BOTH.items()},
    "tf_efficientnetv2_b0": _V2_BASE_NET(1.0, 1.0, input_size=192),
    "tf_efficientnetv2_b1": _V2_BASE_NET(1.0, 1.1, input_size=192),
    "tf_efficientnetv2_b2": _V2_BASE_NET(1.1, 1.2, input_size=208),
    "tf_efficientnetv2_b3": _V2_BASE_NET(1.2, 1.4, input_size=240),
    "tf_efficientnetv2_s": _V2_NET(_V2_S, input_size=300, **_TF),
    "tf_efficientnetv2_m": _V2_NET(_V2_M, input_size=384, **_TF),
    "tf_efficientnetv2_l": _variant(_V2_L, input_size=384, **_TF),
    "tf_efficientnetv2_xl": _variant(_V2_XL, input_size=384, **_TF),
    "mixnet_xl": _MIXNET(_MIXNET_M, 1.6, 1.2, stem=24),
    "mixnet_xxl": _MIXNET(_MIXNET_M, 2.4, 1.3, stem=24),
    "tinynet_a": _TINYNET(1.0, 1.2, input_size=192),
    "tinynet_b": _TINYNET(0.75, 1.1, input_size=188),
    "tinynet_c": _TINYNET(0.54, 0.85, input_size=184),
    "tinynet_d": _TINYNET(0.54, 0.695, input_size=152),
    "tinynet_e": _TINYNET(0.51, 0.6, input_size=106),
    "mobilenet_edgetpu_100": _RELU(_EDGETPU),
    "mobilenet_edgetpu_v2_xs": _RELU(_edgetpu_v2((16, 32, 48, 96, 144, 160, 192), 64)),
    "mobilenet_edgetpu_v2_s": _EDGETPU_WIDE(_edgetpu_v2((24, 48, 64, 128, 160, 192, 256), 64)),
    "mobilenet_edgetpu_v2_m": _EDGETPU_WIDE(_edgetpu_v2((32, 64, 80, 160, 192, 240, 320), 64), head=1344),
    "mobilenet_edgetpu_v2_l": _EDGETPU_WIDE(
        _edgetpu_v2((32, 64, 96, 192, 240, 256, 384), 128), head=1408, stem_kernel_size=7
    ),
    "test_efficientnet": _TEST_NET(),
    "test_efficientnet_gn": _TEST_NET(norm=_GROUP_NORM_8),
    "test_efficientnet_ln": _TEST_NET(norm=partial(layer_norm, eps=1e-5)),
    "test_efficientnet_evos": _TEST_NET(norm=partial(evo_norm, nonlinear=False), norm_act=evo_norm),
}

FAMILY = Family(
    efficientnet,
    "classifier",
    VARIANTS,
    choices={
        "Stack": Stack,
        "conditional_mbconv": conditional_mbconv,
        "space_to_depth_separable": space_to_depth_separable,
    },
    timm=Timm(("efficientnet",)),
    tiny=("test_efficientnet", {"input_size": 32}),
)
