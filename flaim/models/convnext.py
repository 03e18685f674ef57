"""ConvNeXt V1 and V2: depthwise convolutions and inverted bottlenecks in the layout of a Swin Transformer.

Liu et al., "A ConvNet for the 2020s" (2022). Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked
Autoencoders" (2023), replaces the layer scale by global response normalisation. The reference implementation is timm's
`convnext.py`, whose smaller models store the two linear layers of a block as 1x1 convolutions, and whose "ols" models
have a stem of two overlapping 3x3 convolutions.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm, add_zero_bias
from flaim_core import (
    Scope,
    classifier,
    conv,
    drop_path,
    drop_path_schedule,
    gelu,
    gelu_tanh,
    global_response_norm,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    ops,
    rms_norm,
)
from flaim_core.checks import per_stage

_KERNEL_INIT = initializers.truncated_normal(0.02)

convolution = partial(conv, kernel_init=_KERNEL_INIT)
pointwise = partial(convolution, kernel_size=1)
coarse_layer_norm = partial(layer_norm, eps=1e-5)


@kernel
def simple_norm(scope: Scope, x: Float[Array, "*b c"], *, eps: float = 1e-6) -> Float[Array, "*b c"]:
    """Divide the last axis by its (unbiased) standard deviation without centring it. Leaf: `scale`. timm's own."""
    wide = ops.at_least_float32(x)
    normed = wide * ops.fusion_boundary(jax.lax.rsqrt(jnp.var(wide, -1, keepdims=True, ddof=1) + eps))
    scale = scope.param("scale", (x.shape[-1],), initializers.ones, dtype=wide.dtype)
    return (normed * ops.per_channel(scale, x)).astype(x.dtype)


@kernel
def inverted_bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    mlp_ratio: float = 4,
    dense: Callable = linear,
    act: Callable = gelu,
    response_norm: bool = False,
) -> Float[Array, "b h w c"]:
    """Two pointwise layers, `fc1` to `mlp_ratio` times the width and `fc2` back.

    V2 normalises the hidden activations (path `grn`).
    """
    dim = x.shape[-1]
    y = act(dense(scope["fc1"], x, int(mlp_ratio * dim)))
    y = global_response_norm(scope["grn"], y) if response_norm else y
    return dense(scope["fc2"], y, dim)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    kernel_size: int = 7,
    norm: Callable = layer_norm,
    mlp: Callable = inverted_bottleneck,
    layer_scale_init: float | None = 1e-6,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "b h w c"]:
    """`x` plus a depthwise convolution, a norm and an inverted bottleneck; leaf `gamma`, the layer scale of V1."""
    dim = x.shape[-1]
    y = convolution(scope["conv_dw"], x, dim, kernel_size=kernel_size, groups=dim)
    y = mlp(scope["mlp"], norm(scope["norm"], y))
    if layer_scale_init is not None:
        y = layer_scale(scope, y, init_value=layer_scale_init)
    return x + drop_path(scope["drop_path"], y, drop_path_rate)


def patch_stem(scope: Scope, x: Array, dim: int, *, norm: Callable) -> Array:
    """One convolution over patches of 4x4 pixels (path 0), a norm (path 1)."""
    return norm(scope[1], convolution(scope[0], x, dim, kernel_size=4, stride=4, padding=0))


def overlap_stem(
    scope: Scope, x: Array, dim: int, *, norm: Callable, tiered: bool = False, act: Callable | None = None
) -> Array:
    """Two 3x3 convolutions of stride 2 (paths 0 and 1; 0 and 2 with `act` between them), a norm (the path after).

    In a tiered stem the first is half as wide, rounded to a multiple of 8.
    """
    second = 1 if act is None else 2
    x = convolution(scope[0], x, (dim // 2 + 4) // 8 * 8 if tiered else dim, kernel_size=3, stride=2)
    x = x if act is None else act(x)
    return norm(scope[second + 1], convolution(scope[second], x, dim, kernel_size=3, stride=2))


@kernel
def convnext(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int],
    dims: Sequence[int],
    kernel_sizes: int | Sequence[int] = 7,
    stem: Callable = patch_stem,
    mlp_ratio: float = 4,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    dense: Callable = linear,
    response_norm: bool = False,
    layer_scale_init: float | None = 1e-6,
    head_norm: Callable | None = None,
    head_norm_first: bool = False,
    head_hidden: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Convolutional network with one stage for each of `depths`.

    Args:
        kernel_sizes: Sides of the depthwise kernels, one for all stages or one per stage.
        stem: Function `(scope, x, dim, norm=...)` that turns the image into a map four times smaller.
        dense: The layers of a block's inverted bottleneck: `linear`, or `pointwise` where their kernels are stored as
            1x1 convolutions.
        response_norm: V2's global response normalisation in each block.
        layer_scale_init: Initial value of V1's layer scale; None for none.
        head_norm: The head's norm; None for `norm`.
        head_norm_first: Normalise the last feature map instead of its mean.
        head_hidden: Width of a hidden layer before the classifier.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    x = stem(scope["stem"], x, dims[0], norm=norm)
    scope.capture("stage_0", x)

    mlp = partial(inverted_bottleneck, mlp_ratio=mlp_ratio, dense=dense, act=act, response_norm=response_norm)
    options: dict = dict(mlp=mlp, norm=norm, layer_scale_init=layer_scale_init)
    rates = drop_path_schedule(drop_path_rate, sum(depths))
    sizes = (kernel_sizes,) * len(depths) if isinstance(kernel_sizes, int) else kernel_sizes
    for i, (depth, dim, kernel_size) in enumerate(per_stage(depths=depths, dims=dims, kernel_sizes=sizes)):
        stage = scope["stages"][i]
        if i > 0:
            x = norm(stage["downsample"][0], x)
            x = convolution(stage["downsample"][1], x, dim, kernel_size=2, stride=2, padding=0)
        each = {"drop_path_rate": rates[sum(depths[:i]) :][:depth]}
        x = stage["blocks"].repeat(block, x, depth, each=each, kernel_size=kernel_size, **options)
        scope.capture(f"stage_{i + 1}", x)

    if head_norm_first:
        x = norm(scope["norm_pre"], x)
    if n_classes == 0:
        return x
    head, x = scope["head"], ops.global_avg_pool(x)
    if not head_norm_first:
        x = (head_norm or norm)(head["norm"], x)
    if head_hidden is not None:
        x = gelu(linear(head["pre_logits"]["fc"], x, head_hidden))
    return classifier(head["fc"], x, n_classes, drop_rate=drop_rate)


_tiered_stem = partial(overlap_stem, tiered=True)
_activated_stem = partial(overlap_stem, act=gelu)


def _v1(dim: int, depths: Sequence[int], dense: Callable = linear, **config) -> dict:
    """A variant: the first stage's width, which doubles from stage to stage, and the depths."""
    return {"depths": depths, "dims": (dim, 2 * dim, 4 * dim, 8 * dim), "dense": dense, **config}


def _v2(dim: int, depths: Sequence[int], dense: Callable = linear, **config) -> dict:
    return _v1(dim, depths, dense, response_norm=True, layer_scale_init=None, **config)


def _test(depths: Sequence[int], dims: Sequence[int], **config) -> dict:
    return {"depths": depths, "dims": dims, "norm": coarse_layer_norm, "act": gelu_tanh, "input_size": 160, **config}


VARIANTS = {
    "convnext_zepto_rms": _v1(32, (2, 2, 4, 2), pointwise, norm=simple_norm),
    "convnext_zepto_rms_ols": _v1(32, (2, 2, 4, 2), pointwise, norm=simple_norm, stem=_activated_stem),
    "convnext_atto": _v1(40, (2, 2, 6, 2), pointwise),
    "convnext_atto_ols": _v1(40, (2, 2, 6, 2), pointwise, stem=_tiered_stem),
    "convnext_atto_rms": _v1(40, (2, 2, 6, 2), pointwise, norm=rms_norm),
    "convnext_femto": _v1(48, (2, 2, 6, 2), pointwise),
    "convnext_femto_ols": _v1(48, (2, 2, 6, 2), pointwise, stem=_tiered_stem),
    "convnext_pico": _v1(64, (2, 2, 6, 2), pointwise),
    "convnext_pico_ols": _v1(64, (2, 2, 6, 2), pointwise, stem=_tiered_stem),
    "convnext_nano": _v1(80, (2, 2, 8, 2), pointwise),
    "convnext_nano_ols": _v1(80, (2, 2, 8, 2), pointwise, stem=overlap_stem),
    "convnext_tiny": _v1(96, (3, 3, 9, 3)),
    "convnext_tiny_hnf": _v1(96, (3, 3, 9, 3), pointwise, head_norm_first=True),
    "convnext_small": _v1(96, (3, 3, 27, 3)),
    "convnext_base": _v1(128, (3, 3, 27, 3)),
    "convnext_large": _v1(192, (3, 3, 27, 3)),
    "convnext_large_mlp": _v1(192, (3, 3, 27, 3), head_hidden=1536, input_size=320),
    "convnext_xlarge": _v1(256, (3, 3, 27, 3)),
    "convnext_xxlarge": _v1(384, (3, 4, 30, 3), norm=coarse_layer_norm, input_size=256),
    "convnextv2_atto": _v2(40, (2, 2, 6, 2), pointwise),
    "convnextv2_femto": _v2(48, (2, 2, 6, 2), pointwise),
    "convnextv2_pico": _v2(64, (2, 2, 6, 2), pointwise),
    "convnextv2_nano": _v2(80, (2, 2, 8, 2), pointwise),
    "convnextv2_tiny": _v2(96, (3, 3, 9, 3)),
    "convnextv2_small": _v2(96, (3, 3, 27, 3)),
    "convnextv2_base": _v2(128, (3, 3, 27, 3)),
    "convnextv2_large": _v2(192, (3, 3, 27, 3)),
    "convnextv2_huge": _v2(352, (3, 3, 27, 3), input_size=384),
    "test_convnext": _test((1, 2, 4, 2), (24, 32, 48, 64)),
    "test_convnext2": _test((1, 1, 1, 1), (32, 64, 96, 128)),
    "test_convnext3": _test((1, 1, 1, 1), (32, 64, 96, 128), kernel_sizes=(7, 5, 5, 3), act=jax.nn.silu),
}


FAMILY = Family(
    convnext,
    "head/fc",
    VARIANTS,
    choices={
        "overlap_stem": overlap_stem,
        "patch_stem": patch_stem,
        "simple_norm": simple_norm,
        "block": block,
        "inverted_bottleneck": inverted_bottleneck,
        "_KERNEL_INIT": _KERNEL_INIT,
    },
    timm=Timm(("convnext",)),
    older_names=(
        OlderNames(  # OpenCLIP's, with timm's model inside
            r"^visual\.trunk\.stem\.0\.weight$",
            (
                (r"^(?!visual\.)", None),
                (r"^visual\.trunk\.", ""),
                (r"^visual\.head\.proj\.", "head.fc."),
                (r"^visual\.head\.mlp\.fc1\.", "head.pre_logits.fc."),
                (r"^visual\.head\.mlp\.fc2\.", "head.fc."),
            ),
            add_zero_bias("head.fc"),  # of CLIP's projection
        ),
        OlderNames(  # the authors'
            r"^downsample_layers\.0\.0\.weight$",
            (
                (r"^(projectors|norms)\.", None),
                (r"^downsample_layers\.0\.", "stem."),
                (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
                (r"^downsample_layers\.(\d+)\.(\d+)\.", r"stages.\1.downsample.\2."),
                (r"\.dwconv\.", ".conv_dw."),
                (r"\.pwconv(\d)\.", r".mlp.fc\1."),
                (r"\.grn\.beta$", ".mlp.grn.bias"),
                (r"\.grn\.gamma$", ".mlp.grn.weight"),
                (r"^head\.", "head.fc."),
                (r"^norm\.", "head.norm."),
            ),
        ),
    ),
    tiny=("test_convnext2", {"input_size": 32}),
)
