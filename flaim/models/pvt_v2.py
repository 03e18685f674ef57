"""Pyramid Vision Transformer V2: a hierarchy of transformer blocks whose keys and values come from a reduced map.

Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer" (2022). Positions are known from the padding
of convolutions alone, so images can have any size from 32 pixels on. The linear variant pools the map of keys and
values to 7x7, whatever its size. The reference implementation is timm's `pvt_v2.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    classifier_head,
    conv,
    depthwise_mlp,
    drop_path,
    drop_path_schedule,
    gelu,
    kernel,
    layer_norm,
    ops,
    overlap_patch_embed,
    relu,
    spatial_reduction_attention,
    strided_reduction,
)
from flaim_core.checks import check_heads, per_stage

# The norms of embeddings and reduced maps have torch's epsilon, those of blocks and stages the default one.
coarse_norm = partial(layer_norm, eps=1e-5)


@kernel
def pooled_reduction(
    scope: Scope, x: Float[Array, "b h w c"], *, size: int, norm: Callable = coarse_norm
) -> Float[Array, "b n n c"]:
    """A map of `size` x `size`: average pooling, a 1x1 convolution (path `sr`), a norm (`norm`) and GELU."""
    y = conv(scope["sr"], ops.adaptive_avg_pool(x, (size, size)), x.shape[-1], kernel_size=1)
    return gelu(norm(scope["norm"], y))


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    reduce: Callable | None = None,
    mlp_ratio: float = 8,
    qkv_bias: bool = True,
    first_act: Callable | None = None,
    norm: Callable = layer_norm,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "b h w c"]:
    """Pre-norm transformer block: attention to a reduced map, and an MLP with a depthwise convolution."""
    check_heads(scope["attn"], x.shape[-1], num_heads)
    options: dict = dict(num_heads=num_heads, reduce=reduce, qkv_bias=qkv_bias)
    y = spatial_reduction_attention(scope["attn"], norm(scope["norm1"], x), **options)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    hidden = int(mlp_ratio * x.shape[-1])
    y = depthwise_mlp(scope["mlp"], norm(scope["norm2"], x), hidden=hidden, first_act=first_act)
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def pvt_v2(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int] = (3, 4, 6, 3),
    dims: Sequence[int] = (64, 128, 320, 512),
    num_heads: Sequence[int] = (1, 2, 5, 8),
    reduction_ratios: Sequence[int] = (8, 4, 2, 1),
    mlp_ratios: Sequence[float] = (8, 8, 4, 4),
    qkv_bias: bool = True,
    pooled_size: int | None = None,
    norm: Callable = layer_norm,
    embed_norm: Callable = coarse_norm,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`; each but the first halves the map.

    Args:
        n_classes: 0 gives the last feature map after its norm.
        reduction_ratios: In each stage, how many times shorter the sides of the map of keys and values are.
        pooled_size: Side of the map of keys and values in all stages, pooled, instead of `reduction_ratios`.
        norm, embed_norm: Of blocks and stages; of embeddings and reduced maps.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    x = overlap_patch_embed(scope["patch_embed"], x, dims[0], patch_size=7, stride=4, norm=embed_norm)
    scope.capture("stage_0", x)

    rates = drop_path_schedule(drop_path_rate, sum(depths))
    stages = per_stage(depths=depths, dims=dims, heads=num_heads, ratios=reduction_ratios, mlp_ratios=mlp_ratios)
    for i, (depth, dim, heads, ratio, mlp_ratio) in enumerate(stages):
        stage = scope["stages"][i]
        if i > 0:
            x = overlap_patch_embed(stage["downsample"], x, dim, patch_size=3, stride=2, norm=embed_norm)
        options: dict = dict(num_heads=heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, norm=norm)
        if pooled_size is not None:
            options |= dict(reduce=partial(pooled_reduction, size=pooled_size, norm=embed_norm), first_act=relu)
        elif ratio > 1:
            options |= dict(reduce=partial(strided_reduction, ratio=ratio, norm=embed_norm))
        each = {"drop_path_rate": rates[sum(depths[:i]) :][:depth]}
        x = norm(stage["norm"], stage["blocks"].repeat(block, x, depth, each=each, **options))
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"], x, n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "pvt_v2_b0": {"depths": (2, 2, 2, 2), "dims": (32, 64, 160, 256)},
    "pvt_v2_b1": {"depths": (2, 2, 2, 2)},
    "pvt_v2_b2": {"depths": (3, 4, 6, 3)},
    "pvt_v2_b2_li": {"depths": (3, 4, 6, 3), "pooled_size": 7},
    "pvt_v2_b3": {"depths": (3, 4, 18, 3)},
    "pvt_v2_b4": {"depths": (3, 8, 27, 3)},
    "pvt_v2_b5": {"depths": (3, 6, 40, 3), "mlp_ratios": (4, 4, 4, 4)},
}

FAMILY = Family(
    pvt_v2,
    "head",
    VARIANTS,
    timm=Timm(
        ("pvt_v2",),
        {
            "depths": ("depths", None),
            "embed_dims": ("dims", None),
            "linear": ("pooled_size", {True: 7, False: None}),
            "mlp_ratios": ("mlp_ratios", None),
            "num_heads": ("num_heads", None),
            "qkv_bias": ("qkv_bias", None),
            "sr_ratios": ("reduction_ratios", None),
        },
    ),
    older_names=(
        OlderNames(  # the authors', which number patch embeddings, blocks and norms from 1
            r"^patch_embed1\.proj\.weight$",
            (
                (r"^patch_embed1\.", "patch_embed."),
                (r"^patch_embed(\d)\.", lambda match: f"stages.{int(match[1]) - 1}.downsample."),
                (r"^block(\d)\.", lambda match: f"stages.{int(match[1]) - 1}.blocks."),
                (r"^norm(\d)\.", lambda match: f"stages.{int(match[1]) - 1}.norm."),
                (r"\.dwconv\.dwconv\.", ".dwconv."),
            ),
        ),
    ),
    tiny=(
        "pvt_v2_b0",
        {"input_size": 32, "depths": (1, 1), "dims": (8, 16), "reduction_ratios": (4, 1), "mlp_ratios": (2, 2)},
    ),
)
