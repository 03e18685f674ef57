"""Pre-activation ResNets: norms and activations come before convolutions, the sum of a block is left alone.

He et al., "Identity Mappings in Deep Residual Networks" (2016); Kolesnikov et al., "Big Transfer" (2019): BiT, with
group norm and convolutions of standardised kernels. The reference implementation is timm's `resnetv2.py`; its untrained
variant with filter response normalisation is left out.

In Keras' ResNetV2 the last block of a stage strides (`stride_last`), by subsampling in its shortcut; the stem, the
shortcuts and the last convolution of each block have biases (`conv_bias`); the stem's pooling pads with zeros
(`zero_padded_max_pooling`), which its negative inputs notice; the norms have another epsilon (`norm_eps`).
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
    classifier,
    conv,
    drop_path,
    evo_norm,
    group_norm,
    initializers,
    kernel,
    ops,
    relu,
    round_features,
)
from flaim_core.checks import per_stage


@kernel
def standardised_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int,
    stride: int = 1,
    bias: bool = False,
    eps: float = 1e-8,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution by its kernel normalised, for each output, to mean 0 and variance 1. Qiao et al. (2019)."""
    shape = (kernel_size, kernel_size, x.shape[-1], features)
    weight = scope.param("kernel", shape, initializers.he_normal_fan_out, layout="hwio")
    wide = ops.at_least_float32(weight)
    centred = wide - jnp.mean(wide, (0, 1, 2), keepdims=True)
    var = jnp.mean(jnp.square(centred), (0, 1, 2), keepdims=True)
    weight = (centred * jax.lax.rsqrt(var + eps)).astype(x.dtype)
    padding = (stride - 1 + kernel_size - 1) // 2
    y = ops.conv(x, weight, stride=(stride, stride), padding=((padding, padding), (padding, padding)))
    return y + ops.per_channel(scope.param("bias", (features,), initializers.zeros), y) if bias else y


def norm_relu(scope: Scope, x: Float[Array, "b h w c"], *, norm: Callable = batch_norm) -> Float[Array, "b h w c"]:
    """`norm`, then a rectifier."""
    return relu(norm(scope, x))


@kernel
def evo_norm_32(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """EvoNorm-S0 of 32 groups."""
    return evo_norm(scope, x, group_size=x.shape[-1] // 32)


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    convolution: Callable,
    average: bool,
    bias: bool = False,
) -> Float[Array, "b h2 w2 f"]:
    """Projection shortcut: a strided 1x1 convolution, or average pooling and a 1x1 one."""
    if average and stride > 1:
        x, stride = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False), 1
    return convolution(scope["conv"], x, features, kernel_size=1, stride=stride, bias=bias)


@kernel
def basic(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, stride: int, convolution: Callable, norm_act: Callable
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-18 and 34 after its first norm: two 3x3 convolutions."""
    y = convolution(scope["conv1"], x, features, kernel_size=3, stride=stride, bias=False)
    return convolution(scope["conv2"], norm_act(scope["norm2"], y), features, kernel_size=3, bias=False)


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    convolution: Callable,
    norm_act: Callable,
    bias: bool = False,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-50 and deeper after its first norm: 1x1, 3x3, 1x1; the last may have a `bias`."""
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
    stride: int,
    project: bool,
    convolution: Callable,
    norm_act: Callable,
    average_shortcut: bool,
    drop_path_rate: float,
    **options,
) -> Float[Array, "b h2 w2 f"]:
    """`branch(norm(x)) + x`; a projection (path `downsample`) is of the normalised input too."""
    normed = norm_act(scope["norm1"], x)
    y = branch(scope, normed, features, stride=stride, convolution=convolution, norm_act=norm_act, **options)
    if project:
        projection = dict(stride=stride, convolution=convolution, average=average_shortcut)
        x = shortcut(scope["downsample"], normed, features, **projection, **options)
    elif stride > 1:
        x = ops.subsample(x, (stride, stride))
    return x + drop_path(scope["drop_path"], y, drop_path_rate)


def max_pooling(x: Array) -> Array:
    """3x3 max-pooling of stride 2."""
    return ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def zero_padded_max_pooling(x: Array) -> Array:
    """3x3 max-pooling of stride 2 in which the zeros around the image count."""
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
        n_classes: Positive: logits; -1: pooled features; 0: the last feature map.
        branch: `basic` or `bottleneck`.
        widths: What each stage puts out.
        stride_last: A stage's stride is in its last block, not in its first.
        stem_widths: Width of a 7x7 convolution, or those of three 3x3 ones.
        average_shortcut: Projection shortcuts pool first instead of striding.
        convolution: `conv` or `standardised_conv`.
        conv_bias: The stem, the shortcuts and the last convolution of each block have biases.
        norm_eps: Epsilon of all norms; None for the norm's own.
        norm_act: A kernel `(scope, x)` that is norm and activation in one, in the place of `norm` and a rectifier.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
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
    x = stem_pool(x)

    options = dict(branch=branch, convolution=convolution, norm_act=norm_act, average_shortcut=average_shortcut)
    options |= {"bias": True} if conv_bias else {}
    rates = iter(drop_path_rate * i / max(sum(depths) - 1, 1) for i in range(sum(depths)))
    for stage, (depth, width, stride) in enumerate(per_stage(depths=depths, widths=widths, strides=strides)):
        for i in range(depth):
            x = scope["stages"][stage]["blocks"][i].call(
                residual,
                x,
                width,
                stride=stride if i == (depth - 1 if stride_last else 0) else 1,
                project=i == 0 and (branch is bottleneck or stride > 1 or x.shape[-1] != width),
                drop_path_rate=next(rates),
                **options,
            )
        scope.capture(f"stage_{stage + 1}", x)
    x = norm_act(scope["norm"], x)
    return (
        x if n_classes == 0 else classifier(scope["head"]["fc"], ops.global_avg_pool(x), n_classes, drop_rate=drop_rate)
    )


_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STEMS: dict[str, dict] = {
    "": {},
    "d": {"stem_widths": (32, 32, 64), "average_shortcut": True},
    "t": {"stem_widths": (24, 32, 64), "average_shortcut": True},
}


def _resnetv2(layers: int, stem: str = "", **config) -> dict:
    shape = {"branch": basic, "widths": (64, 128, 256, 512)} if layers < 50 else {}
    return {"depths": _DEPTHS[layers], **shape, **_STEMS[stem], **config}


def _bit(layers: int, width: int, input_size: int = 448) -> dict:
    return {
        "depths": _DEPTHS[layers],
        "widths": tuple(width * w for w in (256, 512, 1024, 2048)),
        "stem_widths": (64 * width,),
        "stem_pool": zero_padded_max_pooling,
        "convolution": standardised_conv,
        "norm": group_norm,
        "input_size": input_size,
    }


VARIANTS: dict[str, dict] = {
    "resnetv2_50x1_bit": _bit(50, 1, 224),
    "resnetv2_50x3_bit": _bit(50, 3),
    "resnetv2_101x1_bit": _bit(101, 1),
    "resnetv2_101x3_bit": _bit(101, 3),
    "resnetv2_152x2_bit": _bit(152, 2, 224),
    "resnetv2_152x4_bit": _bit(152, 4, 480),
    **{f"resnetv2_{layers}{stem}": _resnetv2(layers, stem) for layers in (18, 34, 101, 152) for stem in ("", "d")},
    **{f"resnetv2_50{stem}": _resnetv2(50, stem) for stem in ("", "d", "t")},
    "resnetv2_50d_gn": _resnetv2(50, "d", norm=group_norm),
    "resnetv2_50d_evos": _resnetv2(50, "d", norm_act=evo_norm_32),
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
