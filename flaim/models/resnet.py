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
    classifier_head,
    conv,
    drop_path,
    drop_path_schedule,
    efficient_channel_attention,
    group_norm,
    initializers,
    kernel,
    ops,
    relu,
    round_features,
    squeeze_excite,
)
from flaim_core.checks import per_stage
from flaim_core.layers.pooling import average_pooling, blurred_max_pooling, halve, max_pooling


@kernel
def squeeze_excite_rounded(scope: Scope, x: Float[Array, "b h w c"], *, ratio: float = 1 / 16) -> Array:
    """Squeeze-and-excitation whose hidden width is `ratio` of the input's, rounded to a multiple of 8."""
    return squeeze_excite(scope, x, hidden=round_features(x.shape[-1] * ratio, at_least=0))


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    average: bool,
    kernel_size: int,
    bias: bool,
    norm: Callable,
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
    stride: int,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-18 and 34: two 3x3 convolutions."""
    blur = anti_alias if stride > 1 else None
    y = conv(scope["conv1"], x, features, kernel_size=3, stride=1 if blur else stride, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = blur(y) if blur else y
    y = conv(scope["conv2"], y, features, kernel_size=3, bias=bias)
    y = norm(scope["bn2"], y, scale_init=initializers.zeros)
    return y if channel_attention is None else channel_attention(scope["se"], y)


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    groups: int,
    base_width: int,
    first_reduction: int,
    stride_first: bool,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
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
    return y if channel_attention is None else channel_attention(scope["se"], y)


@kernel
def residual(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    branch: Callable,
    projection: Callable,
    stride: int,
    drop_path_rate: float,
) -> Float[Array, "b h2 w2 f"]:
    """`relu(branch(x) + x)`; where the shape changes, `x` is projected (path `downsample`)."""
    y = drop_path(scope["drop_path"], branch(scope, x, features, stride=stride), drop_path_rate)
    if stride > 1 or x.shape[-1] != features:
        x = projection(scope["downsample"], x, features, stride=stride)
    return relu(y + x)


@kernel
def deep_stem(scope: Scope, x: Float[Array, "b h w c"], widths: Sequence[int], *, norm: Callable) -> Array:
    """Three 3x3 convolutions, the first strided: paths 0, 3, 6, norms at 1 and 4. The last norm is the caller's."""
    for i, width in enumerate(widths[:-1]):
        x = conv(scope[3 * i], x, width, kernel_size=3, stride=2 if i == 0 else 1, bias=False)
        x = relu(norm(scope[3 * i + 1], x))
    return conv(scope[6], x, widths[-1], kernel_size=3, bias=False)


def convolution(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """A strided 3x3 convolution instead of pooling (ResNet-RS)."""
    return relu(norm(scope[1], conv(scope[0], x, x.shape[-1], kernel_size=3, stride=2, bias=False)))


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

    It has more than 20 options because each of them differs in one of ResNet's relatives, and users and saved
    configurations set them by name.

    Args:
        branch: `basic` or `bottleneck`, or one per stage; a bottleneck's output has four times its stage's width.
        stem_widths: Widths of three 3x3 convolutions; None for one 7x7 of width `stem_width`.
        stem_pool: Function `(scope, x, norm)` that halves the stem's output once more.
        average_shortcut: Projection shortcuts pool first instead of striding.
        first_stride: Stride of the first stage.
        stride_first: Bottlenecks stride in their first convolution, a 1x1, not in the 3x3 one.
        conv_bias: Convolutions have biases; those of a deep stem have none.
        norm_eps: Epsilon of all norms; None for the norm's own.
        anti_alias: Halves a feature map after a convolution of stride 1, instead of a strided convolution.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    if stem_widths is None:
        x = conv(scope["conv1"], x, stem_width, kernel_size=7, stride=2, bias=conv_bias)
    else:
        x = deep_stem(scope["conv1"], x, tuple(stem_widths), norm=norm)
    x = relu(norm(scope["bn1"], x))
    scope.capture("stage_0", x)
    x = stem_pool(scope["maxpool"], x, norm)

    shared = dict(bias=conv_bias, norm=norm, channel_attention=channel_attention, anti_alias=anti_alias)
    wide = dict(groups=groups, base_width=base_width, first_reduction=first_reduction, stride_first=stride_first)
    projection = partial(
        shortcut, average=average_shortcut, kernel_size=shortcut_kernel_size, bias=conv_bias, norm=norm
    )
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    branches = [branch] * len(depths) if callable(branch) else branch
    for stage, (depth, kind, width) in enumerate(per_stage(depths=depths, branch=branches, widths=widths), 1):
        features, options = (4 * width, {**shared, **wide}) if kind is bottleneck else (width, shared)
        # One object for the stage: equal blocks are compiled once.
        block = partial(residual, branch=partial(kind, **options), projection=projection)
        first = first_stride if stage == 1 else 2
        for i in range(depth):
            stride = first if i == 0 else 1
            x = scope[f"layer{stage}"][i].call(block, x, features, stride=stride, drop_path_rate=next(rates))
        scope.capture(f"stage_{stage}", x)
    return classifier_head(scope["fc"], x, n_classes, drop_rate=drop_rate)


_R10 = {"branch": basic, "depths": (1, 1, 1, 1)}
_R14 = {"branch": bottleneck, "depths": (1, 1, 1, 1)}
_R18 = {"branch": basic, "depths": (2, 2, 2, 2)}
_R26 = {"branch": bottleneck, "depths": (2, 2, 2, 2)}
_R34 = {"branch": basic, "depths": (3, 4, 6, 3)}
_R50 = {"branch": bottleneck, "depths": (3, 4, 6, 3)}
_R101 = {"branch": bottleneck, "depths": (3, 4, 23, 3)}
_R152 = {"branch": bottleneck, "depths": (3, 8, 36, 3)}
_R200 = {"branch": bottleneck, "depths": (3, 24, 36, 3)}
_R201 = {"branch": bottleneck, "depths": (3, 24, 36, 4)}
_R269 = {"branch": bottleneck, "depths": (3, 30, 48, 8)}

_C = {"stem_widths": (32, 32, 64)}
_D = {"stem_widths": (32, 32, 64), "average_shortcut": True}
_S = {"stem_widths": (64, 64, 128)}
_T = {"stem_widths": (24, 32, 64), "average_shortcut": True}
_AVERAGE = {"anti_alias": halve, "stem_pool": average_pooling}
_BLUR = {"anti_alias": ops.blur_pool, "stem_pool": blurred_max_pooling}
_SE = {"channel_attention": squeeze_excite_rounded}
_ECA = {"channel_attention": efficient_channel_attention}
_RS = _D | {"stem_pool": convolution, "channel_attention": partial(squeeze_excite_rounded, ratio=0.25)}


def _groups(groups: int, base_width: int) -> dict[str, int]:
    """ResNeXt's `<groups>x<base_width>d`."""
    return {"groups": groups, "base_width": base_width}


VARIANTS = {
    "resnet10t": _R10 | _T | {"input_size": 176},
    "resnet14t": _R14 | _T | {"input_size": 176},
    "resnet18": _R18,
    "resnet18d": _R18 | _D,
    "resnet26": _R26,
    "resnet26d": _R26 | _D,
    "resnet26t": _R26 | _T | {"input_size": 256},
    "resnet34": _R34,
    "resnet34d": _R34 | _D,
    "resnet50": _R50,
    "resnet50c": _R50 | _C,
    "resnet50d": _R50 | _D,
    "resnet50s": _R50 | _S,
    "resnet50t": _R50 | _T,
    "resnet50_gn": _R50 | {"norm": group_norm},
    "resnet101": _R101,
    "resnet101c": _R101 | _C,
    "resnet101d": _R101 | _D | {"input_size": 256},
    "resnet101s": _R101 | _S,
    "resnet152": _R152,
    "resnet152c": _R152 | _C,
    "resnet152d": _R152 | _D | {"input_size": 256},
    "resnet152s": _R152 | _S,
    "resnet200": _R200,
    "resnet200d": _R200 | _D | {"input_size": 256},
    "resnetaa34d": _R34 | _D | _AVERAGE,
    "resnetaa50": _R50 | _AVERAGE,
    "resnetaa50d": _R50 | _D | _AVERAGE,
    "resnetaa101d": _R101 | _D | _AVERAGE,
    "resnetblur18": _R18 | _BLUR,
    "resnetblur50": _R50 | _BLUR,
    "resnetblur50d": _R50 | _D | _BLUR,
    "resnetblur101d": _R101 | _D | _BLUR,
    "resnetrs50": _RS | {"depths": (3, 4, 6, 3), "input_size": 160},
    "resnetrs101": _RS | {"depths": (3, 4, 23, 3), "input_size": 192},
    "resnetrs152": _RS | {"depths": (3, 8, 36, 3), "input_size": 256},
    "resnetrs200": _RS | {"depths": (3, 24, 36, 3), "input_size": 256},
    "resnetrs270": _RS | {"depths": (4, 29, 53, 4), "input_size": 256},
    "resnetrs350": _RS | {"depths": (4, 36, 72, 4), "input_size": 288},
    "resnetrs420": _RS | {"depths": (4, 44, 87, 4), "input_size": 320},
    "resnext50_32x4d": _R50 | _groups(32, 4),
    "resnext50d_32x4d": _R50 | _groups(32, 4) | _D,
    "resnext101_32x4d": _R101 | _groups(32, 4),
    "resnext101_32x8d": _R101 | _groups(32, 8),
    "resnext101_32x16d": _R101 | _groups(32, 16),
    "resnext101_32x32d": _R101 | _groups(32, 32),
    "resnext101_32x48d": _R101 | _groups(32, 48),
    "resnext101_64x4d": _R101 | _groups(64, 4),
    "wide_resnet50_2": _R50 | {"base_width": 128},
    "wide_resnet101_2": _R101 | {"base_width": 128},
    "seresnet18": _R18 | _SE,
    "seresnet34": _R34 | _SE,
    "seresnet50": _R50 | _SE,
    "seresnet50t": _R50 | _T | _SE,
    "seresnet101": _R101 | _SE,
    "seresnet152": _R152 | _SE,
    "seresnet152d": _R152 | _D | _SE | {"input_size": 256},
    "seresnet200d": _R200 | _D | _SE | {"input_size": 256},
    "seresnet269d": _R269 | _D | _SE | {"input_size": 256},
    "seresnetaa50d": _R50 | _D | _SE | _AVERAGE,
    "seresnext26d_32x4d": _R26 | _groups(32, 4) | _D | _SE,
    "seresnext26t_32x4d": _R26 | _groups(32, 4) | _T | _SE,
    "seresnext50_32x4d": _R50 | _groups(32, 4) | _SE,
    "seresnext101_32x4d": _R101 | _groups(32, 4) | _SE,
    "seresnext101_32x8d": _R101 | _groups(32, 8) | _SE,
    "seresnext101_64x4d": _R101 | _groups(64, 4) | _SE,
    "seresnext101d_32x8d": _R101 | _groups(32, 8) | _D | _SE,
    "seresnextaa101d_32x8d": _R101 | _groups(32, 8) | _D | _SE | _AVERAGE | {"input_size": 288},
    "seresnextaa201d_32x8d": _R201
    | _groups(32, 8)
    | _S
    | _SE
    | _AVERAGE
    | {"average_shortcut": True, "input_size": 384},
    "senet154": _R152 | _groups(64, 4) | _S | _SE | {"shortcut_kernel_size": 3, "first_reduction": 2},
    "ecaresnet26t": _R26 | _T | _ECA | {"input_size": 256},
    "ecaresnet50d": _R50 | _D | _ECA,
    "ecaresnet50t": _R50 | _T | _ECA | {"input_size": 256},
    "ecaresnet101d": _R101 | _D | _ECA,
    "ecaresnet200d": _R200 | _D | _ECA | {"input_size": 256},
    "ecaresnet269d": _R269 | _D | _ECA | {"input_size": 320},
    "ecaresnetlight": _R50 | _ECA | {"depths": (1, 1, 11, 3), "average_shortcut": True},
    "ecaresnext26t_32x4d": _R26 | _groups(32, 4) | _T | _ECA,
    "ecaresnext50t_32x4d": _R50 | _groups(32, 4) | _T | _ECA,
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
