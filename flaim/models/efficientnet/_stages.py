"""The stages of each architecture before it is scaled; `flaim_core.layers.stacks` says what the columns mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax

from flaim.models.efficientnet._blocks import conditional_mbconv, space_to_depth_separable
from flaim_core import global_context, mixed_conv, relu, round_features
from flaim_core.layers.stacks import Stack, Stage, Stages, ds, fused, mb, plain, scale


def _changed(stages: Stages, block: Callable | None = None, **options) -> Stages:
    """`stages` with another block, or more options."""

    def change(stack: Stack) -> Stack:
        return replace(stack, block=block or stack.block, options=(*stack.options, *options.items()))

    return tuple(tuple(map(change, stage)) for stage in stages)


def _mobilenet_v1(first: Mapping = {}) -> Stages:
    """MobileNetV1; `first` are options of the strided blocks."""
    block = partial(ds, residual=False, activate_output=True)
    return (
        block(1, 3, 1, 64),
        block(2, 3, 2, 128, first=first),
        block(2, 3, 2, 256, first=first),
        block(6, 3, 2, 512, first=first),
        block(2, 3, 2, 1024, first=first),
    )


MOBILENET_V1 = _mobilenet_v1()
# Keras pads a strided depthwise convolution at the bottom and right, whether the map's side is even or odd.
TF_MOBILENET_V1 = _mobilenet_v1({"padding": ((0, 1), (0, 1))})
MOBILENET_V2 = (
    ds(1, 3, 1, 16),
    mb(2, 3, 2, 6, 24),
    mb(3, 3, 2, 6, 32),
    mb(4, 3, 2, 6, 64),
    mb(3, 3, 1, 6, 96),
    mb(3, 3, 2, 6, 160),
    mb(1, 3, 1, 6, 320),
)
MNASNET_A1 = (
    ds(1, 3, 1, 16, residual=False),
    mb(2, 3, 2, 6, 24),
    mb(3, 5, 2, 3, 40, 0.25),
    mb(4, 3, 2, 6, 80),
    mb(2, 3, 1, 6, 112, 0.25),
    mb(3, 5, 2, 6, 160, 0.25),
    mb(1, 3, 1, 6, 320),
)
MNASNET_B1 = (
    ds(1, 3, 1, 16, residual=False),
    mb(3, 3, 2, 3, 24),
    mb(3, 5, 2, 3, 40),
    mb(3, 5, 2, 6, 80),
    mb(2, 3, 1, 6, 96),
    mb(4, 5, 2, 6, 192),
    mb(1, 3, 1, 6, 320, residual=False),
)
MNASNET_SMALL = (
    ds(1, 3, 1, 8),
    mb(1, 3, 2, 3, 16),
    mb(2, 3, 2, 6, 16),
    mb(4, 5, 2, 6, 32, 0.25),
    mb(3, 3, 1, 6, 32, 0.25),
    mb(3, 5, 2, 6, 88, 0.25),
    mb(1, 3, 1, 6, 144),
)
FBNET_C = (
    mb(1, 3, 1, 1, 16),
    mb(1, 3, 2, 6, 24) + mb(2, 3, 1, 1, 24),
    mb(1, 5, 2, 6, 32) + mb(1, 5, 1, 3, 32) + mb(1, 5, 1, 6, 32) + mb(1, 3, 1, 6, 32),
    mb(1, 5, 2, 6, 64) + mb(1, 5, 1, 3, 64) + mb(2, 5, 1, 6, 64),
    mb(3, 5, 1, 6, 112) + mb(1, 5, 1, 3, 112),
    mb(4, 5, 2, 6, 184),
    mb(1, 3, 1, 6, 352),
)
SPNASNET = (
    ds(1, 3, 1, 16, residual=False),
    mb(3, 3, 2, 3, 24),
    mb(1, 5, 2, 6, 40) + mb(3, 3, 1, 3, 40),
    mb(1, 5, 2, 6, 80) + mb(3, 3, 1, 3, 80),
    mb(1, 5, 1, 6, 96) + mb(3, 5, 1, 3, 96),
    mb(4, 5, 2, 6, 192),
    mb(1, 3, 1, 6, 320, residual=False),
)

EFFICIENTNET_B0 = (
    ds(1, 3, 1, 16, 0.25),
    mb(2, 3, 2, 6, 24, 0.25),
    mb(2, 5, 2, 6, 40, 0.25),
    mb(3, 3, 2, 6, 80, 0.25),
    mb(3, 5, 1, 6, 112, 0.25),
    mb(4, 5, 2, 6, 192, 0.25),
    mb(1, 3, 1, 6, 320, 0.25),
)
B0_GROUPS_OF_8 = _changed(EFFICIENTNET_B0, group_size=8)
B0_GROUPS_OF_16 = _changed(EFFICIENTNET_B0, group_size=16)
B0_4_EXPERTS = (*EFFICIENTNET_B0[:4], *_changed(EFFICIENTNET_B0[4:], conditional_mbconv, num_experts=4))
B0_8_EXPERTS = (*EFFICIENTNET_B0[:4], *_changed(EFFICIENTNET_B0[4:], conditional_mbconv, num_experts=8))
LITE0 = _changed(EFFICIENTNET_B0, se_ratio=0.0)


def efficientnet_x(width: float, depth: float, expand_ratio: int) -> Stages:
    """EfficientNet-X, scaled: its first stage works on half the resolution and is four times as wide.

    So the second stage has no stride, and its first block expands four times less.
    """
    stages = (
        ds(1, 3, 1, 16, 0.25),
        fused(2, 3, 1, expand_ratio, 24, 0.25, act=relu, first={"expand_ratio": expand_ratio / 4}),
        fused(2, 5, 2, expand_ratio, 40, 0.25, act=relu),
        mb(3, 3, 2, expand_ratio, 80, 0.25),
        *EFFICIENTNET_B0[4:],
    )
    (stack,), *others = scale(stages, width, depth)
    stack = replace(stack, features=4 * stack.features)
    space_to_depth = replace(stack, block=space_to_depth_separable, depth=1)
    return ((space_to_depth, replace(stack, depth=stack.depth - 1)), *others)


def efficientnet_edgetpu(width: float) -> Stages:
    """EfficientNet-EdgeTPU for a network that will be scaled by `width`.

    The first block's hidden width is 4 times 24 channels, though its input has 32: as in timm, both scaled and rounded.
    """
    expand_ratio = 4 * round_features(24 * width) / round_features(32 * width)
    return (
        fused(1, 3, 1, 4, 24, residual=False, first={"expand_ratio": expand_ratio}),
        fused(2, 3, 2, 8, 32),
        fused(4, 3, 2, 8, 48),
        mb(5, 5, 2, 8, 96),
        mb(4, 5, 1, 8, 144),
        mb(2, 5, 2, 8, 192),
    )


MOBILENET_EDGETPU = (
    plain(1, 1, 1, 16),
    fused(1, 3, 2, 8, 32) + fused(3, 3, 1, 4, 32),
    fused(1, 3, 2, 8, 48) + fused(3, 3, 1, 4, 48),
    mb(1, 3, 2, 8, 96) + mb(3, 3, 1, 4, 96),
    mb(1, 3, 1, 8, 96, residual=False) + mb(3, 3, 1, 4, 96),
    mb(1, 5, 2, 8, 160) + mb(3, 5, 1, 4, 160),
    mb(1, 3, 1, 8, 192),
)


def mobilenet_edgetpu_v2(widths: Sequence[int], group_size: int) -> Stages:
    """MobileNet-EdgeTPU-V2: the width of each of seven stages, and of the groups of its grouped convolutions."""
    a, b, c, d, e, f, g = widths
    grouped = partial(fused, group_size=group_size)
    return (
        plain(1, 1, 1, a),
        fused(1, 3, 2, 8, b) + grouped(1, 3, 1, 4, b),
        fused(1, 3, 2, 8, c) + grouped(1, 3, 1, 4, c) + fused(1, 3, 1, 4, c) + grouped(1, 3, 1, 4, c),
        fused(1, 3, 2, 8, d) + mb(3, 3, 1, 4, d),
        mb(1, 3, 1, 8, e) + mb(3, 3, 1, 4, e),
        mb(1, 3, 2, 8, f) + mb(3, 3, 1, 4, f),
        mb(1, 3, 1, 8, g),
    )


def _mix(depth, kernel_sizes, stride, expand_ratio, features, se_ratio, expand_parts, project_parts) -> Stage:
    """A stack of MixNet: kernel sizes side by side; the 1x1 convolutions before and after them in so many parts.

    The activation is swish where there is squeeze-and-excitation, else ReLU.
    """
    return mb(
        depth,
        kernel_sizes,
        stride,
        expand_ratio,
        features,
        se_ratio,
        act=jax.nn.silu if se_ratio else relu,
        convolution=mixed_conv,
        expand_kernel_size=(1,) * expand_parts if expand_parts > 1 else 1,
        project_kernel_size=(1,) * project_parts if project_parts > 1 else 1,
    )


MIXNET_S = (
    ds(1, 3, 1, 16),
    _mix(1, 3, 2, 6, 24, 0, 2, 2) + _mix(1, 3, 1, 3, 24, 0, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 40, 0.5, 1, 1) + _mix(3, (3, 5), 1, 6, 40, 0.5, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 80, 0.25, 1, 2) + _mix(2, (3, 5), 1, 6, 80, 0.25, 1, 2),
    _mix(1, (3, 5, 7), 1, 6, 120, 0.5, 2, 2) + _mix(2, (3, 5, 7, 9), 1, 3, 120, 0.5, 2, 2),
    _mix(1, (3, 5, 7, 9, 11), 2, 6, 200, 0.5, 1, 1) + _mix(2, (3, 5, 7, 9), 1, 6, 200, 0.5, 1, 2),
)
MIXNET_M = (
    ds(1, 3, 1, 24),
    _mix(1, (3, 5, 7), 2, 6, 32, 0, 2, 2) + _mix(1, 3, 1, 3, 32, 0, 2, 2),
    _mix(1, (3, 5, 7, 9), 2, 6, 40, 0.5, 1, 1) + _mix(3, (3, 5), 1, 6, 40, 0.5, 2, 2),
    _mix(1, (3, 5, 7), 2, 6, 80, 0.25, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 6, 80, 0.25, 2, 2),
    _mix(1, 3, 1, 6, 120, 0.5, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 3, 120, 0.5, 2, 2),
    _mix(1, (3, 5, 7, 9), 2, 6, 200, 0.5, 1, 1) + _mix(3, (3, 5, 7, 9), 1, 6, 200, 0.5, 1, 2),
)

EFFICIENTNET_V2_BASE = (
    plain(1, 3, 1, 16, residual=True),
    fused(2, 3, 2, 4, 32),
    fused(2, 3, 2, 4, 48),
    mb(3, 3, 2, 4, 96, 0.25),
    mb(5, 3, 1, 6, 112, 0.25),
    mb(8, 3, 2, 6, 192, 0.25),
)
EFFICIENTNET_V2_S = (
    plain(2, 3, 1, 24, residual=True),
    fused(4, 3, 2, 4, 48),
    fused(4, 3, 2, 4, 64),
    mb(6, 3, 2, 4, 128, 0.25),
    mb(9, 3, 1, 6, 160, 0.25),
    mb(15, 3, 2, 6, 256, 0.25),
)
EFFICIENTNET_V2_M = (
    plain(3, 3, 1, 24, residual=True),
    fused(5, 3, 2, 4, 48),
    fused(5, 3, 2, 4, 80),
    mb(7, 3, 2, 4, 160, 0.25),
    mb(14, 3, 1, 6, 176, 0.25),
    mb(18, 3, 2, 6, 304, 0.25),
    mb(5, 3, 1, 6, 512, 0.25),
)
EFFICIENTNET_V2_L = (
    plain(4, 3, 1, 32, residual=True),
    fused(7, 3, 2, 4, 64),
    fused(7, 3, 2, 4, 96),
    mb(10, 3, 2, 4, 192, 0.25),
    mb(19, 3, 1, 6, 224, 0.25),
    mb(25, 3, 2, 6, 384, 0.25),
    mb(7, 3, 1, 6, 640, 0.25),
)
EFFICIENTNET_V2_XL = (
    plain(4, 3, 1, 32, residual=True),
    fused(8, 3, 2, 4, 64),
    fused(8, 3, 2, 4, 96),
    mb(16, 3, 2, 4, 192, 0.25),
    mb(24, 3, 1, 6, 256, 0.25),
    mb(32, 3, 2, 6, 512, 0.25),
    mb(8, 3, 1, 6, 640, 0.25),
)
# timm's, made after the paper before its authors published their code.
EFFICIENTNET_V2_RW = (fused(2, 3, 1, 1, 24), *EFFICIENTNET_V2_S[1:5], mb(15, 3, 2, 6, 272, 0.25))
EFFICIENTNET_V2_GLOBAL_CONTEXT = (
    *EFFICIENTNET_V2_S[:3],
    *_changed(EFFICIENTNET_V2_S[3:], channel_attention=global_context),
)
TEST = (
    plain(1, 3, 1, 16, residual=True),
    fused(1, 3, 2, 4, 24),
    fused(1, 3, 2, 4, 32),
    mb(1, 3, 2, 4, 48, 0.25),
    mb(1, 3, 2, 4, 64, 0.25),
)
