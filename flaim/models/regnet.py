"""RegNet X, Y, Z and V: networks whose widths follow a linear rule, quantised to a few stages.

Radosavovic et al., "Designing Network Design Spaces" (2020): X, and Y with squeeze-and-excitation. Dollar et al., "Fast
and Accurate Model Scaling" (2021): Z, with inverted bottlenecks. Goyal et al., "Self-supervised Pretraining of Visual
Features in the Wild" (2021): SEER's networks. V, a Y whose norms and activations come before the convolutions, is
timm's own. The reference implementation is timm's `regnet.py`, which has no dilation here.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import jax
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    batch_norm,
    classifier_head,
    conv,
    drop_path,
    drop_path_schedule,
    group_norm,
    initializers,
    kernel,
    ops,
    relu,
    round_features,
    squeeze_excite,
)

# Of grouped convolutions too: in a group, fan-in is fan-out.
convolution = partial(conv, bias=False, kernel_init=initializers.he_normal)


def nearest_multiple(width: float, multiple: int) -> int:
    """The multiple of `multiple` that is nearest to `width`."""
    return multiple * round(width / multiple)


def stages(
    depth: int, w0: int, wa: float, wm: float, group_size: int, bottle_ratio: float, round_width: Callable
) -> Iterator[tuple[int, int, int]]:
    """Depth, width and group size of each stage; the paper, section 3.3.

    Block `i` of `depth` wants the width `w0 + wa * i`. It gets the nearest of `w0 * wm ** k`, for whole `k`, where near
    is meant on a logarithmic scale, rounded to a multiple of 8. A stage is all blocks of one width. Last, `round_width`
    makes the width of its grouped convolutions a multiple of the group size.
    """
    steps = (round(math.log(1 + wa * i / w0, wm)) for i in range(depth))
    for width, count in Counter(nearest_multiple(w0 * wm**step, 8) for step in steps).items():
        hidden = int(width * bottle_ratio)
        size = min(group_size, hidden)
        yield count, int(round_width(hidden, size) / bottle_ratio), size


@kernel
def conv_norm(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    norm: Callable = batch_norm,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution without bias (`conv`) and norm (`bn`)."""
    x = convolution(scope["conv"], x, features, kernel_size=kernel_size, stride=stride, groups=groups)
    return norm(scope["bn"], x)


def strided_shortcut(scope: Scope, x: Array, features: int, *, stride: int, layer: Callable) -> Array:
    """A strided 1x1 convolution; `layer` is the convolution with its norm, if it has one."""
    return layer(scope, x, features, kernel_size=1, stride=stride)


def average_shortcut(scope: Scope, x: Array, features: int, *, stride: int, layer: Callable) -> Array:
    """Average pooling and a 1x1 convolution (path 1)."""
    if stride > 1:
        x = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False)
    return layer(scope[1], x, features, kernel_size=1)


def _add(scope: Scope, x: Array, y: Array, stride: int, shortcut: Callable | None, layer: Callable, rate) -> Array:
    """`x + drop_path(y)`; where the shape changes, `x` is projected (path `downsample`), or left out of the sum."""
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        if shortcut is None:
            return y
        x = shortcut(scope["downsample"], x, y.shape[-1], stride=stride, layer=layer)
    return x + drop_path(scope["drop_path"], y, rate)


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    group_size: int,
    bottle_ratio: float = 1.0,
    se_ratio: float = 0.0,
    linear_out: bool = False,
    shortcut: Callable | None = strided_shortcut,
    norm: Callable = batch_norm,
    act: Callable = relu,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """1x1, grouped 3x3 and 1x1 convolution plus the input; squeeze-and-excitation comes before the last convolution.

    The options are `regnet`'s.
    """
    hidden = round(bottle_ratio * features)
    layer = partial(conv_norm, norm=norm)
    y = act(layer(scope["conv1"], x, hidden))
    y = act(layer(scope["conv2"], y, hidden, kernel_size=3, stride=stride, groups=hidden // group_size))
    if se_ratio:
        y = squeeze_excite(scope["se"], y, hidden=round(se_ratio * x.shape[-1]), act=act)
    # A block begins as its shortcut, where each block has one.
    last = norm if shortcut is None else partial(norm, scale_init=initializers.zeros)
    y = conv_norm(scope["conv3"], y, features, norm=last)
    y = _add(scope, x, y, stride, shortcut, layer, drop_path_rate)
    return y if linear_out else act(y)


@kernel
def preactivated_bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    group_size: int,
    bottle_ratio: float = 1.0,
    se_ratio: float = 0.0,
    shortcut: Callable | None = strided_shortcut,
    norm: Callable = batch_norm,
    act: Callable = relu,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """`bottleneck` with norm and activation before each convolution.

    The shortcut begins after the first activation, and its convolution has no norm.
    """
    hidden = round(bottle_ratio * features)
    x = act(norm(scope["norm1"], x))
    y = convolution(scope["conv1"], x, hidden, kernel_size=1)
    y = act(norm(scope["norm2"], y))
    y = convolution(scope["conv2"], y, hidden, kernel_size=3, stride=stride, groups=hidden // group_size)
    if se_ratio:
        y = squeeze_excite(scope["se"], y, hidden=round(se_ratio * x.shape[-1]), act=act)
    y = act(norm(scope["norm3"], y))
    y = convolution(scope["conv3"], y, features, kernel_size=1)
    return _add(scope, x, y, stride, shortcut, convolution, drop_path_rate)


@kernel
def regnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depth: int,
    w0: int,
    wa: float,
    wm: float,
    group_size: int,
    round_width: Callable = nearest_multiple,
    bottle_ratio: float = 1.0,
    se_ratio: float = 0.0,
    stem_width: int = 32,
    head_width: int = 0,
    preact: bool = False,
    linear_out: bool = False,
    shortcut: Callable | None = strided_shortcut,
    norm: Callable = batch_norm,
    act: Callable = relu,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Strided 3x3 convolution, stages of bottlenecks, each of which halves the map, pooling and a classifier.

    Args:
        depth: Number of blocks in all stages.
        w0, wa, wm: The rule for the blocks' widths: initial width, slope, ratio of neighbouring widths; see `stages`.
        group_size: Channels in a group of the 3x3 convolutions.
        round_width: Function `(width, group_size)` that makes the width of these convolutions a multiple of the group
            size. torchvision's never shrinks it by more than a tenth.
        bottle_ratio: Width of the 3x3 convolutions as a fraction of the block's output width.
        se_ratio: Hidden width of squeeze-and-excitation as a fraction of the block's input width; 0 for none.
        head_width: Width of a 1x1 convolution after the stages; 0 for none.
        preact: Norm and activation come before the convolutions.
        linear_out: Blocks end without an activation; after the last stage there is one.
        shortcut: Function `(scope, x, features, stride=..., layer=...)` that gives the input the shape of a block's
            output where they differ; None to leave it out.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    if preact:
        x = convolution(scope["stem"], x, stem_width, kernel_size=3, stride=2)
        kind: Callable = preactivated_bottleneck
    else:
        x = act(conv_norm(scope["stem"], x, stem_width, kernel_size=3, stride=2, norm=norm))
        kind = partial(bottleneck, linear_out=linear_out)
    scope.capture("stage_0", x)

    rates = iter(drop_path_schedule(drop_path_rate, depth))
    # One object for all stages: equal blocks are compiled once.
    block = partial(kind, bottle_ratio=bottle_ratio, se_ratio=se_ratio, shortcut=shortcut, norm=norm, act=act)
    plan = stages(depth, w0, wa, wm, group_size, bottle_ratio, round_width)
    for stage, (count, width, size) in enumerate(plan, 1):
        for i in range(1, count + 1):
            options = {"stride": 2 if i == 1 else 1, "group_size": size, "drop_path_rate": next(rates)}
            x = scope[f"s{stage}"][f"b{i}"].call(block, x, width, **options)
        scope.capture(f"stage_{stage}", x)

    if head_width:
        x = act(conv_norm(scope["final_conv"], x, head_width, norm=norm))
    elif preact or linear_out:
        x = act(x)
    return classifier_head(scope["head"]["fc"], x, n_classes, drop_rate=drop_rate)


_silu = jax.nn.silu


def _x(depth: int, w0: int, wa: float, wm: float, group_size: int, **options) -> dict:
    return {"depth": depth, "w0": w0, "wa": wa, "wm": wm, "group_size": group_size, **options}


_y = partial(_x, se_ratio=0.25)
_v = partial(_y, preact=True, act=_silu)
_z = partial(_y, bottle_ratio=4.0, linear_out=True, shortcut=None, act=_silu)

# Depth, w0, wa, wm, group size. The numbers in the names are hundreds of millions of multiplications and additions.
VARIANTS = {
    "regnetx_002": _x(13, 24, 36.44, 2.49, 8),
    "regnetx_004": _x(22, 24, 24.48, 2.54, 16),
    "regnetx_004_tv": _x(22, 24, 24.48, 2.54, 16, round_width=round_features),
    "regnetx_006": _x(16, 48, 36.97, 2.24, 24),
    "regnetx_008": _x(16, 56, 35.73, 2.28, 16),
    "regnetx_016": _x(18, 80, 34.01, 2.25, 24),
    "regnetx_032": _x(25, 88, 26.31, 2.25, 48),
    "regnetx_040": _x(23, 96, 38.65, 2.43, 40),
    "regnetx_064": _x(17, 184, 60.83, 2.07, 56),
    "regnetx_080": _x(23, 80, 49.56, 2.88, 120),
    "regnetx_120": _x(19, 168, 73.36, 2.37, 112),
    "regnetx_160": _x(22, 216, 55.59, 2.1, 128),
    "regnetx_320": _x(23, 320, 69.86, 2.0, 168),
    "regnety_002": _y(13, 24, 36.44, 2.49, 8),
    "regnety_004": _y(16, 48, 27.89, 2.09, 8),
    "regnety_006": _y(15, 48, 32.54, 2.32, 16),
    "regnety_008": _y(14, 56, 38.84, 2.4, 16),
    "regnety_008_tv": _y(14, 56, 38.84, 2.4, 16, round_width=round_features),
    "regnety_016": _y(27, 48, 20.71, 2.65, 24),
    "regnety_032": _y(21, 80, 42.63, 2.66, 24),
    "regnety_040": _y(22, 96, 31.41, 2.24, 64),
    "regnety_040_sgn": _y(22, 96, 31.41, 2.24, 64, norm=partial(group_norm, group_size=16), act=_silu),
    "regnety_064": _y(25, 112, 33.22, 2.27, 72),
    "regnety_080": _y(17, 192, 76.82, 2.19, 56),
    "regnety_080_tv": _y(17, 192, 76.82, 2.19, 56, round_width=round_features),
    "regnety_120": _y(19, 168, 73.36, 2.37, 112),
    "regnety_160": _y(18, 200, 106.23, 2.48, 112),
    "regnety_320": _y(20, 232, 115.89, 2.53, 232),
    "regnety_640": _y(20, 352, 147.48, 2.4, 328, input_size=384),
    "regnety_1280": _y(27, 456, 160.83, 2.52, 264, input_size=384),
    "regnety_2560": _y(27, 640, 230.83, 2.53, 373, input_size=384),
    "regnetv_040": _v(22, 96, 31.41, 2.24, 64),
    "regnetv_064": _v(25, 112, 33.22, 2.27, 72, shortcut=average_shortcut),
    "regnetz_005": _z(21, 16, 10.7, 2.51, 4, head_width=1024),
    "regnetz_040": _z(28, 48, 14.5, 2.226, 8, input_size=256),
    "regnetz_040_h": _z(28, 48, 14.5, 2.226, 8, head_width=1536, input_size=256),
}

# A block's names in torchvision and Classy Vision.
_BLOCK_NAMES = (
    (r"\.f\.a\.", ".conv1."),
    (r"\.f\.b\.", ".conv2."),
    (r"\.f\.c\.(?=\d)", ".conv3."),
    (r"\.f\.c\.", ".conv3.conv."),
    (r"\.f\.final_bn\.", ".conv3.bn."),
    (r"\.f\.se\.(excitation\.0|fc1)\.", ".se.fc1."),
    (r"\.f\.se\.(excitation\.2|fc2)\.", ".se.fc2."),
    (r"\.proj\.(?=\d)", ".downsample."),
    (r"\.proj\.", ".downsample.conv."),
    (r"\.(conv\d|downsample)\.0\.", r".\1.conv."),
    (r"\.(conv\d|downsample)\.1\.", r".\1.bn."),
)


def _block_path(match) -> str:
    """`s1.b2`, from the number of the stage and that of the block, which begins at 0."""
    return f"s{match[1]}.b{int(match[2]) + 1}"


FAMILY = Family(
    regnet,
    "head/fc",
    VARIANTS,
    choices={
        "average_shortcut": average_shortcut,
        "nearest_multiple": nearest_multiple,
        "strided_shortcut": strided_shortcut,
    },
    timm=Timm(
        ("regnet",),
        {
            **{name: (name, None) for name in ("depth", "w0", "wa", "wm", "group_size", "bottle_ratio", "se_ratio")},
            **{name: (name, None) for name in ("stem_width", "preact", "linear_out")},
            "num_features": ("head_width", None),
            "downsample": (
                "shortcut",
                {"conv1x1": {"function": "strided_shortcut"}, "avg": {"function": "average_shortcut"}, None: None},
            ),
            "act_layer": ("act", {"relu": {"function": "relu"}, "silu": {"function": "silu"}}),
        },
    ),
    older_names=(
        OlderNames(  # torchvision's
            r"^stem\.0\.weight$",
            (
                (r"^stem\.0\.", "stem.conv."),
                (r"^stem\.1\.", "stem.bn."),
                (r"^trunk_output\.block(\d+)\.block\d+-(\d+)(?=\.)", _block_path),
                *_BLOCK_NAMES,
                (r"^fc\.", "head.fc."),
            ),
        ),
        OlderNames(  # SEER's, of Classy Vision and VISSL, with the heads of its pretraining
            r"(^|/)_feature_blocks\.conv1\.stem\.0\.weight$",
            (
                (r"^(?!((classy_state_dict/)?base_model/model/)?(trunk|heads)/|_feature_blocks\.)", None),
                (r"^.*/", ""),
                (r"projection_head|prototypes", None),
                (r"^_feature_blocks\.conv1\.stem\.0\.", "stem.conv."),
                (r"^_feature_blocks\.conv1\.stem\.1\.", "stem.bn."),
                (r"^_feature_blocks\.res\d+\.block(\d+)-(\d+)(?=\.)", _block_path),
                (r"^(s\d+\.b\d+)\.bn\.", r"\1.downsample.bn."),
                *_BLOCK_NAMES,
                (r"^0\.clf\.0\.", "head.fc."),
            ),
        ),
    ),
    tiny=(
        "regnety_002",
        {"input_size": 32, "depth": 3, "w0": 8, "wa": 5.0, "wm": 2.0, "group_size": 4, "stem_width": 8},
    ),
)
