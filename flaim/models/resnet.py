"""ResNet and its relatives: ResNeXt, SE-ResNet, ECA-ResNet, ResNet-RS, anti-aliased and group-norm ResNets.

He et al., "Deep Residual Learning for Image Recognition" (2015); the stride sits in the 3x3 convolution ("v1.5").
He et al., "Bag of Tricks for Image Classification" (2018): the C and D stems (three 3x3 convolutions) and D's shortcut
(average pooling before the 1x1 convolution); timm's T stem has tiered widths. Xie et al., "ResNeXt" (2016); Hu et al.,
"SENet" (2017); Wang et al., "ECA-Net" (2019); Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019);
Bello et al., "Revisiting ResNets" (2021): RS. The reference implementation is timm's `resnet.py`.

Keras' ResNets are the original ones: the stride sits in the first 1x1 convolution (`stride_first`), convolutions have
biases (`conv_bias`), the norms another epsilon (`norm_eps`).
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    batch_norm,
    classifier,
    conv,
    drop_path,
    efficient_channel_attention,
    group_norm,
    initializers,
    kernel,
    ops,
    relu,
    squeeze_excite,
)
from flaim_core.checks import per_stage


@kernel
def squeeze_excite_rounded(scope: Scope, x: Float[Array, "b h w c"], *, ratio: float = 1 / 16) -> Array:
    """Squeeze-and-excitation whose hidden width is `ratio` of the input's, rounded to a multiple of 8."""
    return squeeze_excite(scope, x, hidden=max(8, int(x.shape[-1] * ratio + 4) // 8 * 8))


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    norm: Callable,
    average: bool,
    kernel_size: int,
    bias: bool = False,
) -> Float[Array, "b h2 w2 f"]:
    """Projection shortcut: a strided convolution (paths 0, 1), or average pooling and a 1x1 one (paths 1, 2)."""
    if average:
        if stride > 1:
            x = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False)
        return norm(scope[2], conv(scope[1], x, features, kernel_size=1, bias=bias))
    kernel_size = kernel_size if stride > 1 else 1
    return norm(scope[1], conv(scope[0], x, features, kernel_size=kernel_size, stride=stride, bias=bias))


@kernel
def basic(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    bias: bool = False,
    norm: Callable = batch_norm,
    channel_attention: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-18 and 34: two 3x3 convolutions."""
    blur = anti_alias if stride > 1 else None
    y = conv(scope["conv1"], x, features, kernel_size=3, stride=1 if blur else stride, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = blur(y) if blur else y
    y = conv(scope["conv2"], y, features, kernel_size=3, bias=bias)
    y = norm(scope["bn2"], y, scale_init=initializers.zeros)
    y = y if channel_attention is None else channel_attention(scope["se"], y)
    return drop_path(scope["drop_path"], y, drop_path_rate)


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int = 1,
    groups: int = 1,
    base_width: int = 64,
    first_reduction: int = 1,
    stride_first: bool = False,
    bias: bool = False,
    norm: Callable = batch_norm,
    channel_attention: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-50 and deeper: 1x1, 3x3, 1x1 convolutions.

    The 3x3 one has `groups` groups of `features / 4 * base_width / 64` channels; SENet-154 narrows the first
    convolution by `first_reduction`. With `stride_first` the first convolution strides, as in the paper.
    """
    width = features // 4 * base_width // 64 * groups
    first, stride = (stride, 1) if stride_first else (1, stride)
    blur = anti_alias if stride > 1 else None
    y = conv(scope["conv1"], x, width // first_reduction, kernel_size=1, stride=first, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = conv(scope["conv2"], y, width, kernel_size=3, stride=1 if blur else stride, groups=groups, bias=bias)
    y = relu(norm(scope["bn2"], y))
    y = blur(y) if blur else y
    y = norm(scope["bn3"], conv(scope["conv3"], y, features, kernel_size=1, bias=bias), scale_init=initializers.zeros)
    y = y if channel_attention is None else channel_attention(scope["se"], y)
    return drop_path(scope["drop_path"], y, drop_path_rate)


@kernel
def residual(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    branch: Callable,
    stride: int,
    norm: Callable,
    average_shortcut: bool,
    shortcut_kernel_size: int,
    bias: bool = False,
    **branch_options,
) -> Float[Array, "b h2 w2 f"]:
    """`relu(branch(x) + x)`, with a projection (path `downsample`) where the shape changes."""
    y = branch(scope, x, features, stride=stride, norm=norm, bias=bias, **branch_options)
    if stride > 1 or x.shape[-1] != features:
        options = dict(stride=stride, norm=norm, average=average_shortcut, kernel_size=shortcut_kernel_size)
        x = shortcut(scope["downsample"], x, features, bias=bias, **options)
    return relu(y + x)


@kernel
def deep_stem(scope: Scope, x: Float[Array, "b h w c"], widths: Sequence[int], *, norm: Callable) -> Array:
    """Three 3x3 convolutions, the first strided; paths 0, 3, 6 with norms at 1 and 4. The last norm is the caller's."""
    for i, width in enumerate(widths[:-1]):
        x = conv(scope[3 * i], x, width, kernel_size=3, stride=2 if i == 0 else 1, bias=False)
        x = relu(norm(scope[3 * i + 1], x))
    return conv(scope[6], x, widths[-1], kernel_size=3, bias=False)


def max_pooling(scope: Scope, x: Array, norm: Callable) -> Array:
    """3x3 max-pooling of stride 2."""
    return ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def average_pooling(scope: Scope, x: Array, norm: Callable) -> Array:
    """2x2 average pooling of stride 2."""
    return halve(x)


def blurred_max_pooling(scope: Scope, x: Array, norm: Callable) -> Array:
    """Dense 3x3 max-pooling, then a blurred subsampling."""
    return ops.blur_pool(ops.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))))


def convolution(scope: Scope, x: Array, norm: Callable) -> Array:
    """A strided 3x3 convolution in the place of pooling (ResNet-RS)."""
    return relu(norm(scope[1], conv(scope[0], x, x.shape[-1], kernel_size=3, stride=2, bias=False)))


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """2x2 average pooling of stride 2."""
    return ops.avg_pool(x, (2, 2), (2, 2))


@kernel
def resnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    branch: Callable | Sequence[Callable] = bottleneck,
    depths: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    stem_widths: Sequence[int] | None = None,
    stem_width: int = 64,
    stem_pool: Callable = max_pooling,
    average_shortcut: bool = False,
    shortcut_kernel_size: int = 1,
    groups: int = 1,
    base_width: int = 64,
    first_reduction: int = 1,
    first_stride: int = 1,
    stride_first: bool = False,
    conv_bias: bool = False,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    channel_attention: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Residual network of four stages.

    Args:
        n_classes: Positive: logits; -1: pooled features; 0: the last feature map.
        branch: `basic` or `bottleneck`, or one of them a stage; a bottleneck puts out four times its stage's width.
        stem_widths: Widths of three 3x3 convolutions; None for one 7x7 of width `stem_width`.
        stem_pool: How the stem halves its output once more, a function `(scope, x, norm)`.
        average_shortcut: Projection shortcuts pool first instead of striding.
        first_stride: Of the first stage.
        stride_first: Bottlenecks stride in their first convolution, a 1x1, not in the 3x3 one.
        conv_bias: Convolutions have biases; those of a deep stem have none.
        norm_eps: Epsilon of all norms; None for the norm's own.
        anti_alias: Halves a feature map after a dense convolution, in the place of a strided one.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    if stem_widths is None:
        x = conv(scope["conv1"], x, stem_width, kernel_size=7, stride=2, bias=conv_bias)
    else:
        x = deep_stem(scope["conv1"], x, tuple(stem_widths), norm=norm)
    x = relu(norm(scope["bn1"], x))
    scope.capture("stage_0", x)
    x = stem_pool(scope["maxpool"], x, norm)

    options = dict(
        bias=conv_bias,
        norm=norm,
        channel_attention=channel_attention,
        anti_alias=anti_alias,
        average_shortcut=average_shortcut,
        shortcut_kernel_size=shortcut_kernel_size,
    )
    wide = dict(groups=groups, base_width=base_width, first_reduction=first_reduction, stride_first=stride_first)
    branches = [branch] * len(depths) if callable(branch) else branch
    rates = iter(drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
    for stage, (depth, kind, width) in enumerate(per_stage(depths=depths, branch=branches, widths=widths), 1):
        stride = first_stride if stage == 1 else 2
        for i in range(depth):
            x = scope[f"layer{stage}"][i].call(
                residual,
                x,
                4 * width if kind is bottleneck else width,
                branch=kind,
                stride=stride if i == 0 else 1,
                drop_path_rate=next(rates),
                **options,
                **(wide if kind is bottleneck else {}),
            )
        scope.capture(f"stage_{stage}", x)
    return x if n_classes == 0 else classifier(scope["fc"], ops.global_avg_pool(x), n_classes, drop_rate=drop_rate)


_DEPTHS = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    269: (3, 30, 48, 8),
}
_STEMS: dict[str, dict] = {
    "": {},
    "c": {"stem_widths": (32, 32, 64)},
    "d": {"stem_widths": (32, 32, 64), "average_shortcut": True},
    "s": {"stem_widths": (64, 64, 128)},
    "t": {"stem_widths": (24, 32, 64), "average_shortcut": True},
}
_SE = {"channel_attention": squeeze_excite_rounded}
_ECA = {"channel_attention": efficient_channel_attention}
_AVERAGE = {"anti_alias": halve, "stem_pool": average_pooling}
_BLUR = {"anti_alias": ops.blur_pool, "stem_pool": blurred_max_pooling}
_RS: dict = {
    **_STEMS["d"],
    "stem_pool": convolution,
    "channel_attention": partial(squeeze_excite_rounded, ratio=0.25),
}


def _resnet(layers: int, stem: str = "", *extras: dict, **config) -> dict:
    """A plain variant: its number of layers, its stem's letter, what else is different."""
    branch = basic if layers in (10, 18, 34) else bottleneck
    for extra in extras:
        config = {**extra, **config}
    return {"branch": branch, "depths": _DEPTHS[layers], **_STEMS[stem], **config}


def _resnext(layers: int, groups: int, base_width: int, stem: str = "", *extras: dict, **config) -> dict:
    return _resnet(layers, stem, *extras, groups=groups, base_width=base_width, **config)


VARIANTS = {
    "resnet10t": _resnet(10, "t", input_size=176),
    "resnet14t": _resnet(14, "t", input_size=176),
    "resnet18": _resnet(18),
    "resnet18d": _resnet(18, "d"),
    "resnet26": _resnet(26),
    "resnet26d": _resnet(26, "d"),
    "resnet26t": _resnet(26, "t", input_size=256),
    "resnet34": _resnet(34),
    "resnet34d": _resnet(34, "d"),
    "resnet50": _resnet(50),
    "resnet50c": _resnet(50, "c"),
    "resnet50d": _resnet(50, "d"),
    "resnet50s": _resnet(50, "s"),
    "resnet50t": _resnet(50, "t"),
    "resnet50_gn": _resnet(50, norm=group_norm),
    "resnet101": _resnet(101),
    "resnet101c": _resnet(101, "c"),
    "resnet101d": _resnet(101, "d", input_size=256),
    "resnet101s": _resnet(101, "s"),
    "resnet152": _resnet(152),
    "resnet152c": _resnet(152, "c"),
    "resnet152d": _resnet(152, "d", input_size=256),
    "resnet152s": _resnet(152, "s"),
    "resnet200": _resnet(200),
    "resnet200d": _resnet(200, "d", input_size=256),
    "resnetaa34d": _resnet(34, "d", _AVERAGE),
    "resnetaa50": _resnet(50, "", _AVERAGE),
    "resnetaa50d": _resnet(50, "d", _AVERAGE),
    "resnetaa101d": _resnet(101, "d", _AVERAGE),
    "resnetblur18": _resnet(18, "", _BLUR),
    "resnetblur50": _resnet(50, "", _BLUR),
    "resnetblur50d": _resnet(50, "d", _BLUR),
    "resnetblur101d": _resnet(101, "d", _BLUR),
    "resnetrs50": {"depths": (3, 4, 6, 3), **_RS, "input_size": 160},
    "resnetrs101": {"depths": (3, 4, 23, 3), **_RS, "input_size": 192},
    "resnetrs152": {"depths": (3, 8, 36, 3), **_RS, "input_size": 256},
    "resnetrs200": {"depths": (3, 24, 36, 3), **_RS, "input_size": 256},
    "resnetrs270": {"depths": (4, 29, 53, 4), **_RS, "input_size": 256},
    "resnetrs350": {"depths": (4, 36, 72, 4), **_RS, "input_size": 288},
    "resnetrs420": {"depths": (4, 44, 87, 4), **_RS, "input_size": 320},
    "resnext50_32x4d": _resnext(50, 32, 4),
    "resnext50d_32x4d": _resnext(50, 32, 4, "d"),
    "resnext101_32x4d": _resnext(101, 32, 4),
    "resnext101_32x8d": _resnext(101, 32, 8),
    "resnext101_32x16d": _resnext(101, 32, 16),
    "resnext101_32x32d": _resnext(101, 32, 32),
    "resnext101_32x48d": _resnext(101, 32, 48),
    "resnext101_64x4d": _resnext(101, 64, 4),
    "wide_resnet50_2": _resnet(50, base_width=128),
    "wide_resnet101_2": _resnet(101, base_width=128),
    "seresnet18": _resnet(18, "", _SE),
    "seresnet34": _resnet(34, "", _SE),
    "seresnet50": _resnet(50, "", _SE),
    "seresnet50t": _resnet(50, "t", _SE),
    "seresnet101": _resnet(101, "", _SE),
    "seresnet152": _resnet(152, "", _SE),
    "seresnet152d": _resnet(152, "d", _SE, input_size=256),
    "seresnet200d": _resnet(200, "d", _SE, input_size=256),
    "seresnet269d": _resnet(269, "d", _SE, input_size=256),
    "seresnetaa50d": _resnet(50, "d", _SE, _AVERAGE),
    "seresnext26d_32x4d": _resnext(26, 32, 4, "d", _SE),
    "seresnext26t_32x4d": _resnext(26, 32, 4, "t", _SE),
    "seresnext50_32x4d": _resnext(50, 32, 4, "", _SE),
    "seresnext101_32x4d": _resnext(101, 32, 4, "", _SE),
    "seresnext101_32x8d": _resnext(101, 32, 8, "", _SE),
    "seresnext101_64x4d": _resnext(101, 64, 4, "", _SE),
    "seresnext101d_32x8d": _resnext(101, 32, 8, "d", _SE),
    "seresnextaa101d_32x8d": _resnext(101, 32, 8, "d", _SE, _AVERAGE, input_size=288),
    "seresnextaa201d_32x8d": _resnext(
        200, 32, 8, "s", _SE, _AVERAGE, depths=(3, 24, 36, 4), average_shortcut=True, input_size=384
    ),
    "senet154": _resnext(152, 64, 4, "", _SE, stem_widths=(64, 64, 128), shortcut_kernel_size=3, first_reduction=2),
    "ecaresnet26t": _resnet(26, "t", _ECA, input_size=256),
    "ecaresnet50d": _resnet(50, "d", _ECA),
    "ecaresnet50t": _resnet(50, "t", _ECA, input_size=256),
    "ecaresnet101d": _resnet(101, "d", _ECA),
    "ecaresnet200d": _resnet(200, "d", _ECA, input_size=256),
    "ecaresnet269d": _resnet(269, "d", _ECA, input_size=320),
    "ecaresnetlight": _resnet(50, "", _ECA, depths=(1, 1, 11, 3), average_shortcut=True),
    "ecaresnext26t_32x4d": _resnext(26, 32, 4, "t", _ECA),
    "ecaresnext50t_32x4d": _resnext(50, 32, 4, "t", _ECA),
    "test_resnet": {
        "branch": (basic, basic, bottleneck, basic),
        "depths": (1, 1, 1, 1),
        "widths": (32, 48, 48, 96),
        "stem_widths": (16, 16, 32),
        "average_shortcut": True,
        "input_size": 160,
    },
}

FAMILY = Family(
    resnet,
    "fc",
    VARIANTS,
    choices={
        "average_pooling": average_pooling,
        "basic": basic,
        "blurred_max_pooling": blurred_max_pooling,
        "bottleneck": bottleneck,
        "convolution": convolution,
        "halve": halve,
        "max_pooling": max_pooling,
        "squeeze_excite_rounded": squeeze_excite_rounded,
    },
    timm=Timm(("resnet",)),
    tiny=("test_resnet", {"input_size": 32}),
)
