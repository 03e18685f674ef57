"""Pre-activation ResNets: norms and activations come before convolutions, and nothing follows the sum of a block.

He et al., "Identity Mappings in Deep Residual Networks" (2016); Kolesnikov et al., "Big Transfer" (2019): BiT, with
group norm and convolutions of standardised kernels. The reference implementation is timm's `resnetv2.py`; its untrained
variant with filter response normalisation is left out.

In Keras' ResNetV2 the last block of a stage strides (`stride_last`), by subsampling in its shortcut; the stem, the
shortcuts and the last convolution of each block have biases (`conv_bias`); the stem's pooling pads with zeros
(`zero_padded_max_pooling`), which matters for negative inputs; the norms have another epsilon (`norm_eps`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    batch_norm,
    classifier_head,
    conv,
    drop_path,
    drop_path_schedule,
    evo_norm,
    group_norm,
    kernel,
    ops,
    relu,
    round_features,
    standardised_conv,
)
from flaim_core.checks import per_stage
from flaim_core.layers.pooling import max_pooling


def norm_relu(scope: Scope, x: Float[Array, "b h w c"], *, norm: Callable = batch_norm) -> Float[Array, "b h w c"]:
    """`norm`, then ReLU."""
    return relu(norm(scope, x))


@kernel
def evo_norm_32(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """EvoNorm-S0 with 32 groups."""
    return evo_norm(scope, x, group_size=x.shape[-1] // 32)


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    average: bool,
    convolution: Callable,
    bias: bool,
) -> Float[Array, "b h2 w2 f"]:
    """Projection shortcut: a strided 1x1 convolution, or average pooling and a 1x1 one."""
    if average and stride > 1:
        x, stride = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False), 1
    return convolution(scope["conv"], x, features, kernel_size=1, stride=stride, bias=bias)


@kernel
def basic(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    convolution: Callable,
    norm_act: Callable,
    bias: bool,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-18 and 34 after its first norm: two 3x3 convolutions; `bias` is the last one's."""
    y = convolution(scope["conv1"], x, features, kernel_size=3, stride=stride, bias=False)
    return convolution(scope["conv2"], norm_act(scope["norm2"], y), features, kernel_size=3, bias=bias)


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    convolution: Callable,
    norm_act: Callable,
    bias: bool,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-50 and deeper after its first norm: 1x1, 3x3, 1x1; `bias` is the last one's."""
    width = round_features(features / 4)
    y = convolution(scope["conv1"], x, width, kernel_size=1, bias=False)
    y = convolution(scope["conv2"], norm_act(scope["norm2"], y), width, kernel_size=3, stride=stride, bias=False)
    return convolution(scope["conv3"], norm_act(scope["norm3"], y), features, kernel_size=1, bias=bias)


@kernel
def residual(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    branch: Callable,
    projection: Callable | None,
    norm_act: Callable,
    stride: int,
    drop_path_rate: float,
) -> Float[Array, "b h2 w2 f"]:
    """`branch(norm(x)) + x`; a `projection` (path `downsample`) takes the normalised input too."""
    normed = norm_act(scope["norm1"], x)
    y = branch(scope, normed, features, stride=stride)
    if projection is not None:
        x = projection(scope["downsample"], normed, features, stride=stride)
    elif stride > 1:
        x = ops.subsample(x, (stride, stride))
    return x + drop_path(scope["drop_path"], y, drop_path_rate)


def zero_padded_max_pooling(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 2, padded with zeros."""
    return ops.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))


@kernel
def resnetv2(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    branch: Callable = bottleneck,
    depths: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (256, 512, 1024, 2048),
    strides: Sequence[int] = (1, 2, 2, 2),
    stride_last: bool = False,
    stem_widths: Sequence[int] = (64,),
    stem_pool: Callable = max_pooling,
    average_shortcut: bool = False,
    convolution: Callable = conv,
    conv_bias: bool = False,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    norm_act: Callable | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Pre-activation residual network.

    Args:
        branch: `basic` or `bottleneck`.
        widths: Output width of each stage.
        stride_last: A stage's stride is in its last block, not in its first.
        stem_widths: Width of a 7x7 convolution, or those of three 3x3 ones.
        stem_pool: Function `(scope, x, norm)` that halves the stem's output once more.
        average_shortcut: Projection shortcuts pool first instead of striding.
        convolution: `conv` or `standardised_conv`.
        conv_bias: The stem, the shortcuts and the last convolution of each block have biases.
        norm_eps: Epsilon of all norms; None for the norm's own.
        norm_act: A kernel `(scope, x)` that is norm and activation in one; None for `norm` and ReLU.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    norm_act = norm_act or partial(norm_relu, norm=norm)
    stem = scope["stem"]
    if len(stem_widths) == 1:
        x = convolution(stem["conv"], x, stem_widths[0], kernel_size=7, stride=2, bias=conv_bias)
    else:
        for i, width in enumerate(stem_widths, 1):
            x = norm_act(stem[f"norm{i - 1}"], x) if i > 1 else x
            x = convolution(stem[f"conv{i}"], x, width, kernel_size=3, stride=2 if i == 1 else 1, bias=False)
    scope.capture("stage_0", x)
    x = stem_pool(stem["pool"], x, norm)

    projection = partial(shortcut, average=average_shortcut, convolution=convolution, bias=conv_bias)
    block = partial(
        residual, branch=partial(branch, convolution=convolution, norm_act=norm_act, bias=conv_bias), norm_act=norm_act
    )
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    for stage, (depth, width, stride) in enumerate(per_stage(depths=depths, widths=widths, strides=strides)):
        for i in range(depth):
            projects = i == 0 and (branch is bottleneck or stride > 1 or x.shape[-1] != width)
            x = scope["stages"][stage]["blocks"][i].call(
                block,
                x,
                width,
                projection=projection if projects else None,
                stride=stride if i == (depth - 1 if stride_last else 0) else 1,
                drop_path_rate=next(rates),
            )
        scope.capture(f"stage_{stage + 1}", x)
    return classifier_head(scope["head"]["fc"], norm_act(scope["norm"], x), n_classes, drop_rate=drop_rate)


_R18 = {"branch": basic, "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)}
_R34 = {"branch": basic, "depths": (3, 4, 6, 3), "widths": (64, 128, 256, 512)}
_R50 = {"depths": (3, 4, 6, 3)}
_R101 = {"depths": (3, 4, 23, 3)}
_R152 = {"depths": (3, 8, 36, 3)}

_D = {"stem_widths": (32, 32, 64), "average_shortcut": True}
_T = {"stem_widths": (24, 32, 64), "average_shortcut": True}


def _bit(width: int) -> dict:
    """A BiT model whose stem and stages are `width` times as wide as ResNet's."""
    return {
        "widths": tuple(width * w for w in (256, 512, 1024, 2048)),
        "stem_widths": (64 * width,),
        "stem_pool": zero_padded_max_pooling,
        "convolution": standardised_conv,
        "norm": group_norm,
    }


VARIANTS = {
    "resnetv2_50x1_bit": _R50 | _bit(1),
    "resnetv2_50x3_bit": _R50 | _bit(3) | {"input_size": 448},
    "resnetv2_101x1_bit": _R101 | _bit(1) | {"input_size": 448},
    "resnetv2_101x3_bit": _R101 | _bit(3) | {"input_size": 448},
    "resnetv2_152x2_bit": _R152 | _bit(2),
    "resnetv2_152x4_bit": _R152 | _bit(4) | {"input_size": 480},
    "resnetv2_18": _R18,
    "resnetv2_18d": _R18 | _D,
    "resnetv2_34": _R34,
    "resnetv2_34d": _R34 | _D,
    "resnetv2_101": _R101,
    "resnetv2_101d": _R101 | _D,
    "resnetv2_152": _R152,
    "resnetv2_152d": _R152 | _D,
    "resnetv2_50": _R50,
    "resnetv2_50d": _R50 | _D,
    "resnetv2_50t": _R50 | _T,
    "resnetv2_50d_gn": _R50 | _D | {"norm": group_norm},
    "resnetv2_50d_evos": _R50 | _D | {"norm_act": evo_norm_32},
}

FAMILY = Family(
    resnetv2,
    "head/fc",
    VARIANTS,
    choices={
        "basic": basic,
        "bottleneck": bottleneck,
        "evo_norm_32": evo_norm_32,
        "max_pooling": max_pooling,
        "standardised_conv": standardised_conv,
        "zero_padded_max_pooling": zero_padded_max_pooling,
    },
    timm=Timm(("resnetv2",)),
    tiny=("resnetv2_50t", {"input_size": 32, "depths": (2, 1), "widths": (32, 64)}),
)
