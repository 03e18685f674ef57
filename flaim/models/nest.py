"""NesT: transformer blocks on separate parts of the image, which are merged between the stages.

Zhang et al., "Nested Hierarchical Transformer" (2021). The map of tokens is divided into a grid of square parts, and a
token attends to the tokens of its own part. Between two stages a convolution and max-pooling over the whole map make
one part of 2x2. The reference implementation is timm's `nest.py`, which, like this one, takes square images alone and
has no way to resample position embeddings for images of another size; there the default rate of stochastic depth is
0.5, here 0. We leave out attention dropout.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    attention,
    classifier_head,
    conv,
    drop_path,
    drop_path_schedule,
    initializers,
    kernel,
    layer_norm,
    mlp,
    ops,
    patch_embed,
    resolve_padding,
)
from flaim_core.checks import check_heads, per_stage, require_fixed

Rate = float | Float[Array, ""]
Padding = Literal["same"] | None
_NORMAL = initializers.truncated_normal(0.02)


def heads_last(scope: Scope, x: Float[Array, "*b n c"], num_heads: int) -> Float[Array, "*b n c"]:
    """Attention's channels in timm's order before the last linear layer, (width, head) and not (head, width)."""
    heads = x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
    return jnp.swapaxes(heads, -1, -2).reshape(x.shape)


@kernel
def layer(
    scope: Scope,
    x: Float[Array, "b p n c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
) -> Float[Array, "b p n c"]:
    """Pre-norm transformer block on `p` parts of `n` tokens, which attend within their part."""
    check_heads(scope["attn"], x.shape[-1], num_heads)
    options: dict = dict(num_heads=num_heads, qkv_bias=qkv_bias, drop_rate=drop_rate)
    order = partial(heads_last, num_heads=num_heads)
    y = attention(scope["attn"], layer_norm(scope["norm1"], x), norm=order, **options)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    hidden = int(mlp_ratio * x.shape[-1])
    y = mlp(scope["mlp"], layer_norm(scope["norm2"], x), hidden=hidden, drop_rate=drop_rate)
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def pooling(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, padding: Padding = None
) -> Float[Array, "b h2 w2 f"]:
    """Halve a map of even sides: a 3x3 convolution (paths `conv`, `norm`) and 3x3 max-pooling of stride 2.

    `padding` is that of the pooling: None for one pixel on each side, `"same"` for TensorFlow's.
    """
    x = layer_norm(scope["norm"], conv(scope["conv"], x, features, kernel_size=3, kernel_init=_NORMAL))
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), (3, 3), (2, 2))
    return ops.max_pool(x, (3, 3), (2, 2), pads)


@kernel
def nest(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dims: Sequence[int] = (128, 256, 512),
    depths: Sequence[int] = (2, 2, 20),
    num_heads: Sequence[int] = (4, 8, 16),
    patch_size: int = 4,
    mlp_ratio: float = 4,
    qkv_bias: bool = True,
    padding: Padding = None,
    drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`; the last has one part, the one before 2x2, and so on.

    Args:
        n_classes: 0 gives the last feature map after the norm.
        padding: Of the pooling between stages: None for one pixel on each side, `"same"` for TensorFlow's.
        drop_rate, proj_drop_rate: Dropout before the head, and in blocks.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.

    Raises:
        ValueError: The image is not square, or does not divide into patches and parts.
    """
    x = patch_embed(scope["patch_embed"], x, dims[0], patch_size=patch_size)
    scope.capture("stage_0", x)
    require_fixed(scope["levels"][0], "pos_embed", x.shape[1:3])
    parts = 2 ** (len(depths) - 1)
    if x.shape[1] != x.shape[2] or x.shape[1] % parts:
        raise ValueError(
            f"a map of {x.shape[1]}x{x.shape[2]} patches does not divide into {parts}x{parts} equal squares; "
            f"choose a square input size whose side is a multiple of {parts * patch_size}"
        )
    side = x.shape[1] // parts

    rates = drop_path_schedule(drop_path_rate, sum(depths))
    options: dict = dict(mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, drop_rate=proj_drop_rate)
    for i, (depth, dim, heads) in enumerate(per_stage(depths=depths, dims=dims, num_heads=num_heads)):
        level = scope["levels"][i]
        if i > 0:
            x = pooling(level["pool"], x, dim, padding=padding)
        size = (x.shape[1], x.shape[2])
        y = ops.window_partition(x, (side, side))
        y = y + level.param("pos_embed", (1, *y.shape[1:]), _NORMAL)
        each, rates = {"drop_path_rate": rates[:depth]}, rates[depth:]
        y = level["transformer_encoder"].repeat(layer, y, depth, each=each, num_heads=heads, **options)
        x = ops.window_reverse(y, (side, side), size)
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"], layer_norm(scope["norm"], x), n_classes, drop_rate=drop_rate)


_TINY = {"dims": (96, 192, 384), "depths": (2, 2, 8), "num_heads": (3, 6, 12)}
_SMALL = {"dims": (96, 192, 384), "depths": (2, 2, 20), "num_heads": (3, 6, 12)}
_BASE = {"dims": (128, 256, 512), "depths": (2, 2, 20), "num_heads": (4, 8, 16)}

VARIANTS: dict[str, dict] = {
    "nest_tiny": _TINY,
    "nest_small": _SMALL,
    "nest_base": _BASE,
    "nest_tiny_jx": {**_TINY, "padding": "same"},
    "nest_small_jx": {**_SMALL, "padding": "same"},
    "nest_base_jx": {**_BASE, "padding": "same"},
}

FAMILY = Family(
    nest,
    "head",
    VARIANTS,
    timm=Timm(
        ("nest",),
        {
            "depths": ("depths", None),
            "embed_dims": ("dims", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "pad_type": ("padding", {"": None, "same": "same"}),
            "patch_size": ("patch_size", None),
            "qkv_bias": ("qkv_bias", None),
        },
        fixed_input_size=True,
    ),
    tiny=("nest_tiny_jx", {"input_size": 32, "depths": (1, 1), "dims": (16, 32), "num_heads": (1, 2)}),
)
