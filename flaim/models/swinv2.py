"""Swin Transformer V2: shifted windows, attention by cosines, norms after each branch, a position bias from an MLP.

Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution" (2022). The reference implementation is timm's
`swin_transformer_v2.py`; there the default rate of stochastic depth is 0.1, here 0. For images of another size, windows
keep their number of tokens, as in a timm model that is created with that size; timm's `set_input_size` scales them.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    classifier_head,
    cosine_window_attention,
    drop_path,
    drop_path_schedule,
    initializers,
    kernel,
    layer_norm,
    mlp,
    pair,
    patch_embed,
    patch_merging,
)
from flaim_core.checks import per_stage

swin_norm = partial(layer_norm, eps=1e-5)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    window: int | tuple[int, int] = 8,
    shift: int | tuple[int, int] = 0,
    pretrained_window: int | tuple[int, int] = 0,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    norm: Callable = swin_norm,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Transformer block, attention within windows; each branch ends with a norm, whose scale is initialised to 0."""
    post_norm = partial(norm, scale_init=initializers.zeros)
    options: dict = dict(window=window, shift=shift, pretrained_window=pretrained_window, qkv_bias=qkv_bias)
    y = cosine_window_attention(scope["attn"], x, num_heads=num_heads, **options)
    x = x + drop_path(scope["drop_path1"], post_norm(scope["norm1"], y), drop_path_rate)
    y = mlp(scope["mlp"], x, hidden=int(mlp_ratio * x.shape[-1]))
    return x + drop_path(scope["drop_path2"], post_norm(scope["norm2"], y), drop_path_rate)


@kernel
def swinv2(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int | Sequence[int | tuple[int, int]] = 8,
    pretrained_windows: Sequence[int] = (0, 0, 0, 0),
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
        window: Side of the windows in tokens, one number for all stages or one (or height and width) per stage; blocks
            1, 3, ... of a stage shift them by half of it.
        pretrained_windows: For each stage the side of the windows of the pretraining, if the model was fine-tuned with
            others, or 0. It is the unit of the offsets that the position bias is computed from.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    x = patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size, norm=norm)
    scope.capture("stage_0", x)

    options = dict(mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, norm=norm)
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    windows = (window,) * len(depths) if isinstance(window, int) else window
    stages = per_stage(depths=depths, num_heads=num_heads, window=windows, pretrained_windows=pretrained_windows)
    for i, (depth, heads, side, pretrained) in enumerate(stages):
        stage, (height, width) = scope["layers"][i], pair(side)
        if i > 0:
            x = patch_merging(stage["downsample"], x, norm=norm, norm_first=False)
        options |= dict(num_heads=heads, window=(height, width), pretrained_window=pretrained)
        for j in range(depth):
            shift = (height // 2, width // 2) if j % 2 else 0
            x = stage["blocks"][j].call(block, x, shift=shift, drop_path_rate=next(rates), **options)
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"]["fc"], norm(scope["norm"], x), n_classes, drop_rate=drop_rate)


_TINY = {"dim": 96, "num_heads": (3, 6, 12, 24), "depths": (2, 2, 6, 2), "input_size": 256}
_SMALL = {**_TINY, "depths": (2, 2, 18, 2)}
_BASE = {**_SMALL, "dim": 128, "num_heads": (4, 8, 16, 32)}
_LARGE = {**_SMALL, "dim": 192, "num_heads": (6, 12, 24, 48)}
_IN22K = {"window": 12, "input_size": 192, "n_classes": 21841}
_FINE_TUNED = {"pretrained_windows": (12, 12, 12, 6)}

VARIANTS = {
    "swinv2_tiny_window8_256": _TINY,
    "swinv2_tiny_window16_256": {**_TINY, "window": 16},
    "swinv2_small_window8_256": _SMALL,
    "swinv2_small_window16_256": {**_SMALL, "window": 16},
    "swinv2_base_window8_256": _BASE,
    "swinv2_base_window16_256": {**_BASE, "window": 16},
    "swinv2_base_window12_192": {**_BASE, **_IN22K},
    "swinv2_base_window12to16_192to256": {**_BASE, **_FINE_TUNED, "window": 16},
    "swinv2_base_window12to24_192to384": {**_BASE, **_FINE_TUNED, "window": 24, "input_size": 384},
    "swinv2_large_window12_192": {**_LARGE, **_IN22K},
    "swinv2_large_window12to16_192to256": {**_LARGE, **_FINE_TUNED, "window": 16},
    "swinv2_large_window12to24_192to384": {**_LARGE, **_FINE_TUNED, "window": 24, "input_size": 384},
}

FAMILY = Family(
    swinv2,
    "head/fc",
    VARIANTS,
    timm=Timm(
        ("swin_transformer_v2",),
        {
            "depths": ("depths", None),
            "embed_dim": ("dim", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "pretrained_window_sizes": ("pretrained_windows", None),
            "qkv_bias": ("qkv_bias", None),
            "window_size": ("window", None),
        },
        fixed_input_size=True,
    ),
    older_names=(
        OlderNames(  # the authors', whose stages end with the downsampling; timm's begin with it
            r"^layers\.0\.downsample\.reduction\.weight$",
            (
                (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample"),
                (r"^head\.", "head.fc."),
            ),
        ),
    ),
    tiny=(
        "swinv2_tiny_window8_256",
        {"input_size": 32, "window": 4, "depths": (2, 1), "num_heads": (1, 2), "dim": 16},
    ),
)
