"""DaViT: blocks that attend within windows of tokens, then among groups of channels.

Ding et al., "DaViT: Dual Attention Vision Transformers" (2022). The "fl" models are the image encoders of Florence-2:
Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks" (2023). The reference
implementation is timm's `davit.py`. We leave out its options that no published model uses: blocks without an MLP or of
one kind alone, an activation of the position encoding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    attend_in_windows,
    attention,
    channel_group_attention,
    classifier,
    conv,
    drop_path,
    drop_path_schedule,
    initializers,
    kernel,
    layer_norm,
    mlp,
    ops,
    token_scaled_channel_attention,
)
from flaim_core.checks import per_stage

convolution = partial(conv, kernel_init=initializers.lecun_normal)
davit_norm = partial(layer_norm, eps=1e-5)


@kernel
def spatial_attention(
    scope: Scope, x: Float[Array, "b h w c"], *, num_heads: int, window: int | tuple[int, int], qkv_bias: bool = True
) -> Float[Array, "b h w c"]:
    """Attention within windows, without a position bias; a map is padded to whole windows, a small one too."""

    def attend(windows: Array, *_: Any) -> Array:
        return attention(scope, windows, num_heads=num_heads, qkv_bias=qkv_bias)

    return attend_in_windows(scope, x, attend, window=window, shrink=False)


@kernel
def channel_attention(
    scope: Scope, x: Float[Array, "b h w c"], *, attn: Callable, num_heads: int, qkv_bias: bool = True
) -> Float[Array, "b h w c"]:
    """`attn`, attention among channels, of all tokens of a map."""
    tokens = attn(scope, ops.merge_axes(x, 1), num_heads=num_heads, qkv_bias=qkv_bias)
    return ops.split_axis(tokens, 1, x.shape[2])


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    attn: Callable,
    mlp_ratio: float = 4,
    norm: Callable = davit_norm,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "b h w c"]:
    """Pre-norm transformer block, with a depthwise 3x3 convolution that encodes positions before each branch."""
    positions = partial(convolution, features=x.shape[-1], kernel_size=3, groups=x.shape[-1])
    x = x + positions(scope["cpe1"]["proj"], x)
    y = attn(scope["attn"], norm(scope["norm1"], x))
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    x = x + positions(scope["cpe2"]["proj"], x)
    y = mlp(scope["mlp"], norm(scope["norm2"], x), hidden=int(mlp_ratio * x.shape[-1]))
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def dual_block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    window: int | tuple[int, int] = 7,
    qkv_bias: bool = True,
    channel_attn: Callable = channel_group_attention,
    names: tuple[str, str] = ("0", "1"),
    **options: Any,
) -> Float[Array, "b h w c"]:
    """A block with attention within windows, then one with attention among channels; `names` are their paths."""
    shared: dict = dict(num_heads=num_heads, qkv_bias=qkv_bias)
    x = block(scope[names[0]], x, attn=partial(spatial_attention, window=window, **shared), **options)
    return block(scope[names[1]], x, attn=partial(channel_attention, attn=channel_attn, **shared), **options)


@kernel
def davit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int] = (1, 1, 9, 1),
    dims: Sequence[int] = (96, 192, 384, 768),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 7,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    down_kernel_size: int = 2,
    channel_attn: Callable = channel_group_attention,
    block_names: tuple[str, str] = ("0", "1"),
    head_norm_first: bool = False,
    norm: Callable = davit_norm,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`, which counts pairs of blocks; each stage halves the map.

    Args:
        n_classes: 0 gives the last feature map, after the norm if `head_norm_first`.
        window: Side of the windows in tokens.
        down_kernel_size: Side of the convolutions between stages, 2 or 3.
        channel_attn: Kernel `(scope, tokens, num_heads=..., qkv_bias=...)`, attention among channels.
        block_names: Paths of the two blocks of a pair.
        head_norm_first: Normalise the last feature map instead of its mean.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last pair of blocks; it grows linearly from 0 at the first.
    """
    x = convolution(scope["stem"]["conv"], x, dims[0], kernel_size=7, stride=4, padding=3)
    x = norm(scope["stem"]["norm"], x)
    scope.capture("stage_0", x)

    options: dict = dict(
        window=window, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, channel_attn=channel_attn, names=block_names, norm=norm
    )
    rates = drop_path_schedule(drop_path_rate, sum(depths))
    # "same": a map with an odd side is padded at the bottom or right.
    down: dict = dict(kernel_size=down_kernel_size, stride=2, padding=1 if down_kernel_size % 2 else "same")
    for i, (depth, dim, heads) in enumerate(per_stage(depths=depths, dims=dims, num_heads=num_heads)):
        stage = scope["stages"][i]
        if i > 0:
            x = norm(stage["downsample"]["norm"], x)
            x = convolution(stage["downsample"]["conv"], x, dim, **down)
        each = {"drop_path_rate": rates[sum(depths[:i]) :][:depth]}
        x = stage["blocks"].repeat(dual_block, x, depth, each=each, num_heads=heads, **options)
        scope.capture(f"stage_{i + 1}", x)

    if head_norm_first:
        x = norm(scope["norm_pre"], x)
    if n_classes == 0:
        return x
    x = ops.global_avg_pool(x)
    if not head_norm_first:
        x = norm(scope["head"]["norm"], x)
    return classifier(scope["head"]["fc"], x, n_classes, drop_rate=drop_rate)


def _variant(dim: int, depths: Sequence[int] = (1, 1, 9, 1), **config: Any) -> dict[str, Any]:
    """A variant: the first stage's width, which doubles from stage to stage, and the depths; heads are 32 wide."""
    dims = (dim, 2 * dim, 4 * dim, 8 * dim)
    return {"depths": depths, "dims": dims, "num_heads": tuple(width // 32 for width in dims), **config}


_NAMES = ("spatial_block", "channel_block")
_FLORENCE: dict[str, Any] = {
    "window": 12,
    "down_kernel_size": 3,
    "channel_attn": token_scaled_channel_attention,
    "block_names": _NAMES,
    "input_size": 768,
    "n_classes": -1,
}

VARIANTS = {
    "davit_tiny": _variant(96, (1, 1, 3, 1)),
    "davit_small": _variant(96),
    "davit_base": _variant(128),
    "davit_large": _variant(192),
    "davit_huge": _variant(256),
    "davit_giant": _variant(384, (1, 1, 12, 3)),
    "davit_base_fl": _variant(128, **_FLORENCE),
    "davit_huge_fl": _variant(256, **_FLORENCE),
}


def _add_head_norm(tensors: dict[str, Any]) -> dict[str, Any]:
    """Florence-2's encoder has no norm after the pooling, timm's has: one that is as it was initialised."""
    if (last := tensors.get("stages.3.downsample.conv.bias")) is not None:
        tensors.setdefault("head.norm.weight", np.ones(last.shape, np.float32))
        tensors.setdefault("head.norm.bias", np.zeros(last.shape, np.float32))
    return tensors


_STAGES = (
    (r"^(?:patch_embeds|convs)\.(\d+)", r"stages.\1.downsample"),
    (r"^(?:main_)?blocks\.(\d+)", r"stages.\1.blocks"),
    (r"\.downsample\.proj\.", ".downsample.conv."),
    (r"^stages\.0\.downsample", "stem"),
)

FAMILY = Family(
    davit,
    "head/fc",
    VARIANTS,
    timm=Timm(
        ("davit",),
        {
            "channel_attn_v2": (
                "channel_attn",
                {
                    False: {"function": "channel_group_attention"},
                    True: {"function": "token_scaled_channel_attention"},
                },
            ),
            "depths": ("depths", None),
            "down_kernel_size": ("down_kernel_size", None),
            "embed_dims": ("dims", None),
            "head_norm_first": ("head_norm_first", None),
            "mlp_ratio": ("mlp_ratio", None),
            "named_blocks": ("block_names", {False: ["0", "1"], True: list(_NAMES)}),
            "num_heads": ("num_heads", None),
            "qkv_bias": ("qkv_bias", None),
            "window_size": ("window", None),
        },
    ),
    older_names=(
        OlderNames(  # Florence-2's, with its language model
            r"^vision_tower\.convs\.0\.proj\.weight$",
            (
                (r"^(?!vision_tower\.)", None),
                (r"^vision_tower\.", ""),
                *_STAGES,
                (r"\.(?:window|channel)_attn\.norm\.", ".norm1."),
                (r"\.(?:window|channel)_attn\.fn\.", ".attn."),
                (r"\.ffn\.norm\.", ".norm2."),
                (r"\.ffn\.fn\.net\.", ".mlp."),
                (r"\.conv(\d)\.fn\.dw\.", r".cpe\1.proj."),
            ),
            _add_head_norm,
        ),
        OlderNames(  # the authors'
            r"^patch_embeds\.0\.proj\.weight$",
            (
                *_STAGES,
                (r"^head\.", "head.fc."),
                (r"^norms\.", "head.norm."),
                (r"\.cpe\.0\.", ".cpe1."),
                (r"\.cpe\.1\.", ".cpe2."),
            ),
        ),
    ),
    tiny=("davit_tiny", {"input_size": 32, "depths": (1, 1), "dims": (16, 32), "num_heads": (1, 2)}),
)
