"""Swin Transformer: a hierarchy of blocks that attend within windows, every other one within shifted windows.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (2021). The S3 variants, with
another window in each stage, are from Chen et al., "Searching the Search Space of Vision Transformer" (2021). The
reference implementation is timm's `swin_transformer.py`; there the default rate of stochastic depth is 0.1, here 0.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    classifier_head,
    drop_path,
    drop_path_schedule,
    kernel,
    layer_norm,
    mlp,
    patch_embed,
    patch_merging,
    window_attention,
)
from flaim_core.checks import check_heads, per_stage

swin_norm = partial(layer_norm, eps=1e-5)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    window: int | tuple[int, int] = 7,
    shift: int | tuple[int, int] = 0,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    norm: Callable = swin_norm,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Pre-norm transformer block whose attention is within windows."""
    check_heads(scope["attn"], x.shape[-1], num_heads)
    y = norm(scope["norm1"], x)
    y = window_attention(scope["attn"], y, num_heads=num_heads, window=window, shift=shift, qkv_bias=qkv_bias)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    y = mlp(scope["mlp"], norm(scope["norm2"], x), hidden=int(mlp_ratio * x.shape[-1]))
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def swin(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int | Sequence[int] = 7,
    patch_size: int = 4,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    norm: Callable = swin_norm,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`; each halves the map of the one before and doubles its width.

    Args:
        n_classes: 0 gives the last feature map after the norm.
        dim: Width of the first stage.
        num_heads: One number per stage.
        window: Side of the windows in tokens, one number for all stages or one per stage; blocks 1, 3, ... of a stage
            shift them by half of it.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    x = patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size, norm=norm)
    scope.capture("stage_0", x)

    options = dict(mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, norm=norm)
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    windows = (window,) * len(depths) if isinstance(window, int) else window
    for i, (depth, heads, side) in enumerate(per_stage(depths=depths, num_heads=num_heads, window=windows)):
        stage = scope["layers"][i]
        if i > 0:
            x = patch_merging(stage["downsample"], x, norm=norm)
        for j in range(depth):
            shift = side // 2 if j % 2 else 0
            rate = next(rates)
            x = stage["blocks"][j].call(
                block, x, num_heads=heads, window=side, shift=shift, drop_path_rate=rate, **options
            )
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"]["fc"], norm(scope["norm"], x), n_classes, drop_rate=drop_rate)


_TINY = {"dim": 96, "num_heads": (3, 6, 12, 24), "depths": (2, 2, 6, 2)}
_SMALL = {**_TINY, "depths": (2, 2, 18, 2)}
_BASE = {"dim": 128, "num_heads": (4, 8, 16, 32), "depths": (2, 2, 18, 2)}
_LARGE = {"dim": 192, "num_heads": (6, 12, 24, 48), "depths": (2, 2, 18, 2)}

VARIANTS = {
    "swin_tiny_patch4_window7_224": _TINY,
    "swin_small_patch4_window7_224": _SMALL,
    "swin_base_patch4_window7_224": _BASE,
    "swin_base_patch4_window12_384": {**_BASE, "window": 12, "input_size": 384},
    "swin_large_patch4_window7_224": _LARGE,
    "swin_large_patch4_window12_384": {**_LARGE, "window": 12, "input_size": 384},
    "swin_s3_tiny_224": {**_TINY, "window": (7, 7, 14, 7)},
    "swin_s3_small_224": {**_SMALL, "window": (14, 14, 14, 7)},
    "swin_s3_base_224": {**_SMALL, "window": (7, 7, 14, 7), "depths": (2, 2, 30, 2)},
}

FAMILY = Family(
    swin,
    "head/fc",
    VARIANTS,
    timm=Timm(
        ("swin_transformer",),
        {
            "depths": ("depths", None),
            "embed_dim": ("dim", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "qkv_bias": ("qkv_bias", None),
            "window_size": ("window", None),
        },
        fixed_input_size=True,
    ),
    older_names=(
        # SimMIM's, from pretraining with masked patches.
        OlderNames(r"^encoder\.layers\.0\.", ((r"^decoder\.|^encoder\.mask_token$", None), (r"^encoder\.", ""))),
        OlderNames(  # the authors', whose stages end with the downsampling; timm's begin with it
            r"^layers\.0\.downsample\.reduction\.weight$",
            (
                (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample"),
                (r"^head\.", "head.fc."),
            ),
        ),
    ),
    tiny=("swin_tiny_patch4_window7_224", {"input_size": 56, "depths": (2, 2), "num_heads": (1, 2), "dim": 16}),
)
