"""GCViT: a hierarchy of blocks that attend within windows, every other one with queries from the whole image.

Hatamizadeh et al., "Global Context Vision Transformers" (2022). The reference implementation is timm's `gcvit.py`. The
windows grow with the image: their sides are fixed fractions of its own, so it has to be a multiple of 32 pixels. For
another size than a checkpoint's its relative position tables are resampled, as those of Swin; timm does not do it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    block_attention,
    classifier_head,
    conv,
    drop_path,
    drop_path_schedule,
    gelu,
    global_query_attention,
    kernel,
    layer_norm,
    layer_scale,
    mlp,
    ops,
    pair,
    round_features,
    squeeze_excite,
)
from flaim_core.checks import per_stage, require_fixed

gcvit_norm = partial(layer_norm, eps=1e-5)


@kernel
def convolution_block(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """`x` plus a depthwise 3x3 convolution, squeeze-and-excitation and a pointwise convolution, without norms."""
    dim = x.shape[-1]
    y = gelu(conv(scope["conv_dw"], x, dim, kernel_size=3, groups=dim, bias=False))
    y = squeeze_excite(scope["se"], y, hidden=round_features(dim / 4, at_least=0), act=gelu, bias=False)
    return x + conv(scope["conv_pw"], y, dim, kernel_size=1, bias=False)


@kernel
def downsample(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, norm: Callable = gcvit_norm
) -> Float[Array, "b h2 w2 f"]:
    """Halve a map: a norm, `convolution_block`, a 3x3 convolution of stride 2 and another norm."""
    x = convolution_block(scope["conv_block"], norm(scope["norm1"], x))
    return norm(scope["norm2"], conv(scope["reduction"], x, features, kernel_size=3, stride=2, bias=False))


@kernel
def query_generator(scope: Scope, x: Float[Array, "b h w c"], *, halvings: int) -> Float[Array, "b h2 w2 c"]:
    """The global queries, a map as large as a window: `convolution_block`s, with max-pooling after each.

    Without `halvings` there is one block and no pooling.
    """
    for i in range(max(halvings, 1)):
        x = convolution_block(scope["blocks"][f"conv{i + 1}"], x)
        x = ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if halvings else x
    return x


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    query: Float[Array, "b h2 w2 c"] | None = None,
    *,
    num_heads: int,
    window: tuple[int, int],
    mlp_ratio: float = 3,
    layer_scale_init: float | None = None,
    norm: Callable = gcvit_norm,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Pre-norm transformer block whose attention is within windows; `query`, as large as they are, if it is global."""

    def add(x, y, number):
        y = y if layer_scale_init is None else layer_scale(scope[f"ls{number}"], y, init_value=layer_scale_init)
        return x + drop_path(scope[f"drop_path{number}"], y, drop_path_rate)

    y = norm(scope["norm1"], x)
    if query is None:
        y = block_attention(scope["attn"], y, num_heads=num_heads, size=window)
    else:
        y = global_query_attention(scope["attn"], y, query, num_heads=num_heads)
    x = add(x, y, 1)
    return add(x, mlp(scope["mlp"], norm(scope["norm2"], x), hidden=int(mlp_ratio * x.shape[-1])), 2)


@kernel
def gcvit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int = 64,
    depths: Sequence[int] = (3, 4, 19, 5),
    num_heads: Sequence[int] = (2, 4, 8, 16),
    window_ratio: Sequence[int] = (32, 32, 16, 32),
    window: int | Sequence[int | tuple[int, int]] | None = None,
    mlp_ratio: float = 3,
    layer_scale_init: float | None = None,
    norm: Callable = gcvit_norm,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`; each halves the map of the one before and doubles its width.

    Args:
        n_classes: 0 gives the last feature map after the norm.
        dim: Width of the first stage.
        num_heads: One number per stage.
        window_ratio: Per stage, the pixels of the image for each token of a window's side.
        window: Side of the windows in tokens, one number for all stages or one (or height and width) per stage; None:
            from `window_ratio`.
        layer_scale_init: Initial value of the layer scales; None for none.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    size = (x.shape[1], x.shape[2])
    first = scope["stages"][0]["blocks"][0]["attn"]["rel_pos"]
    require_fixed(first, "relative_position_bias_table", size)
    windows: Sequence = [(size[0] // ratio, size[1] // ratio) for ratio in window_ratio]
    if window is not None:
        windows = (window,) * len(depths) if isinstance(window, int) else window

    x = conv(scope["stem"]["conv1"], x, dim, kernel_size=3, stride=2)
    x = downsample(scope["stem"]["down"], x, dim, norm=norm)
    scope.capture("stage_0", x)

    options: dict = dict(mlp_ratio=mlp_ratio, layer_scale_init=layer_scale_init, norm=norm)
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    for i, (depth, heads, side) in enumerate(per_stage(depths=depths, num_heads=num_heads, windows=windows)):
        stage, side = scope["stages"][i], pair(side)
        if i > 0:
            x = downsample(stage["downsample"], x, 2 * x.shape[-1], norm=norm)
        query = query_generator(stage["global_block"], x, halvings=_halvings((x.shape[1], x.shape[2]), side, size))
        for j in range(depth):
            x = stage["blocks"][j].call(
                block,
                x,
                query if j % 2 else None,
                num_heads=heads,
                window=side,
                drop_path_rate=next(rates),
                **options,
            )
        if i == len(depths) - 1:
            x = norm(stage["norm"], x)
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"]["fc"], x, n_classes, drop_rate=drop_rate)


def _halvings(size: tuple[int, int], window: tuple[int, int], image: tuple[int, int]) -> int:
    """How often a map of `size` is halved to become as large as a window; ValueError if it never does."""
    n = int(math.log2(max(min(size) / max(min(window), 1), 1)))
    if any(-(-side // 2**n) != tokens for side, tokens in zip(size, window)):
        raise ValueError(
            f"a feature map of {size[0]}x{size[1]} cannot be halved to a window of {window[0]}x{window[1]}; images of "
            f"{image[0]}x{image[1]} need other windows, or an input size that is a multiple of 32"
        )
    return n


_BASE: dict = {"mlp_ratio": 2, "layer_scale_init": 1e-5}

VARIANTS: dict[str, dict] = {
    "gcvit_xxtiny": {"depths": (2, 2, 6, 2)},
    "gcvit_xtiny": {"depths": (3, 4, 6, 5)},
    "gcvit_tiny": {},
    "gcvit_small": {**_BASE, "dim": 96, "num_heads": (3, 6, 12, 24)},
    "gcvit_base": {**_BASE, "dim": 128, "num_heads": (4, 8, 16, 32)},
}

FAMILY = Family(
    gcvit,
    "head/fc",
    VARIANTS,
    timm=Timm(
        ("gcvit",),
        {
            "depths": ("depths", None),
            "embed_dim": ("dim", None),
            "layer_scale": ("layer_scale_init", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "window_ratio": ("window_ratio", None),
            "window_size": ("window", None),
        },
        fixed_input_size=True,
    ),
    tiny=(
        "gcvit_xxtiny",
        {"input_size": 32, "dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_ratio": (16, 8)},
    ),
)
