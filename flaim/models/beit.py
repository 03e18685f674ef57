"""BEiT and BEiT v2: Vision Transformers with relative position biases, pretrained by predicting masked patches.

Bao et al., "BEiT: BERT Pre-Training of Image Transformers" (2021); Peng et al., "BEiT v2: Masked Image Modeling with
Vector-Quantized Visual Tokenizers" (2022). The reference implementation is timm's `beit.py`; there the initial kernels
of each branch's last layer shrink with depth, here they do not. We leave out attention dropout.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    attention,
    class_relative_position_table,
    classifier,
    drop_path,
    drop_path_schedule,
    dropout,
    gelu,
    initializers,
    kernel,
    layer_norm,
    mlp,
    ops,
    patch_embed,
    position_embedding,
)
from flaim_core.checks import check_heads, require_fixed

Tokens = Float[Array, "b n c"]
Bias = Float[Array, "h n n"]
Rate = float | Float[Array, ""]


@kernel
def relative_attention(
    scope: Scope, x: Tokens, *, num_heads: int, grid: tuple[int, int] | None, bias: Bias | None, **options: Any
) -> Tokens:
    """Self-attention with a bias: `bias`, one from a table of its own, the sum of the two, or none.

    `grid` is the height and width of the map of patches; None for no table of its own.
    """
    if grid is not None:
        own = class_relative_position_table(scope, x, num_heads=num_heads, size=grid)
        bias = own if bias is None else own + bias
    return attention(scope, x, num_heads=num_heads, bias=bias, key_bias=False, **options)


@kernel
def block(
    scope: Scope,
    x: Tokens | tuple[Tokens, Bias],
    *,
    num_heads: int,
    grid: tuple[int, int] | None,
    hidden: int,
    qkv_bias: bool,
    mlp: Callable,
    act: Callable,
    norm: Callable,
    layer_scale_init: float | None,
    drop_rate: float,
    drop_path_rate: Rate,
) -> Tokens | tuple[Tokens, Bias]:
    """Pre-norm transformer block. With an attention bias beside the tokens it returns both."""
    tokens, bias = x if isinstance(x, tuple) else (x, None)
    scales: list[Any] = [1.0, 1.0]
    if layer_scale_init is not None:
        shape, init = tokens.shape[-1:], initializers.constant(layer_scale_init)
        scales = [ops.per_channel(scope.param(f"gamma_{i}", shape, init), tokens) for i in (1, 2)]
    attn: dict = dict(num_heads=num_heads, grid=grid, qkv_bias=qkv_bias, drop_rate=drop_rate)
    y = scales[0] * relative_attention(scope["attn"], norm(scope["norm1"], tokens), bias=bias, **attn)
    tokens = tokens + drop_path(scope["drop_path1"], y, drop_path_rate)
    y = scales[1] * mlp(scope["mlp"], norm(scope["norm2"], tokens), hidden=hidden, act=act, drop_rate=drop_rate)
    tokens = tokens + drop_path(scope["drop_path2"], y, drop_path_rate)
    return tokens if bias is None else (tokens, bias)


@kernel
def beit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    patch_size: int | tuple[int, int] = 16,
    mlp_ratio: float = 4.0,
    mlp: Callable = mlp,
    act: Callable = gelu,
    norm: Callable = layer_norm,
    qkv_bias: bool = True,
    layer_scale_init: float | None = 1e-5,
    absolute_positions: bool = False,
    relative_positions: bool = True,
    shared_relative_positions: bool = False,
    average_pool: bool = True,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Stack of equal transformer blocks on a class token and patches.

    It has more than 20 options because pretrained and fine-tuned models locate tokens in different ways.

    Args:
        n_classes: 0 gives all tokens, the class token first; normalised only without `average_pool`.
        mlp: `mlp` or `glu`, also with a `norm` of the hidden activations.
        qkv_bias: Queries and values have biases; keys never do.
        layer_scale_init: Initial layer scale; None for none.
        absolute_positions: Position embeddings are added to all tokens.
        relative_positions: Each block's attention has a relative position bias of its own.
        shared_relative_positions: All blocks' attentions have one relative position bias in common.
        average_pool: The head takes the mean of the patches and then normalises it, instead of the class token.
        drop_rate, pos_drop_rate, proj_drop_rate: Dropout before the head, after the position embedding, and in blocks.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    check_heads(scope["blocks"], dim, num_heads)
    x = patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size)
    grid = x.shape[1], x.shape[2]
    class_token = ops.repeat_over_batch(scope.param("cls_token", (1, 1, dim), initializers.truncated_normal(0.02)), x)
    if relative_positions:
        require_fixed(scope["blocks"][0]["attn"], "relative_position_bias_table", grid)
    x = jnp.concatenate([class_token, ops.merge_axes(x, 1)], axis=1)
    if absolute_positions:
        x = position_embedding(scope, x)
    x = dropout(scope["pos_drop"], x, pos_drop_rate)
    scope.capture("block_0", x)

    carried: Any = x
    if shared_relative_positions:
        require_fixed(scope["rel_pos_bias"], "relative_position_bias_table", grid)
        carried = x, class_relative_position_table(scope["rel_pos_bias"], x, num_heads=num_heads, size=grid)

    def tokens_of(carried):
        return carried[0] if shared_relative_positions else carried

    carried = scope["blocks"].repeat(
        block,
        carried,
        depth,
        each={"drop_path_rate": drop_path_schedule(drop_path_rate, depth)},
        after=lambda i, carried: scope.capture(f"block_{i + 1}", tokens_of(carried)),
        num_heads=num_heads,
        grid=grid if relative_positions else None,
        hidden=int(dim * mlp_ratio),
        qkv_bias=qkv_bias,
        mlp=mlp,
        act=act,
        norm=norm,
        layer_scale_init=layer_scale_init,
        drop_rate=proj_drop_rate,
    )
    x = tokens_of(carried)

    if not average_pool:
        x = norm(scope["norm"], x)
    if n_classes == 0:
        return x
    x = norm(scope["fc_norm"], jnp.mean(x[:, 1:], axis=1)) if average_pool else x[:, 0]
    return classifier(scope["head"], x, n_classes, drop_rate=drop_rate)


_BASE: dict = dict(dim=768, depth=12, num_heads=12)
_LARGE: dict = dict(dim=1024, depth=24, num_heads=16)

VARIANTS = {
    "beit_base_patch16_224": {**_BASE, "layer_scale_init": 0.1},
    "beit_base_patch16_384": {**_BASE, "layer_scale_init": 0.1, "input_size": 384},
    "beit_large_patch16_224": _LARGE,
    "beit_large_patch16_384": {**_LARGE, "input_size": 384},
    "beit_large_patch16_512": {**_LARGE, "input_size": 512},
    "beitv2_base_patch16_224": _BASE,
    "beitv2_large_patch16_224": _LARGE,
}

FAMILY = Family(
    beit,
    "head",
    VARIANTS,
    timm=Timm(
        ("beit",),
        {
            "depth": ("depth", None),
            "embed_dim": ("dim", None),
            "global_pool": ("average_pool", {"avg": True, "token": False}),
            "init_values": ("layer_scale_init", None),
            "mlp_ratio": ("mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "qkv_bias": ("qkv_bias", None),
            "use_abs_pos_emb": ("absolute_positions", None),
            "use_rel_pos_bias": ("relative_positions", None),
            "use_shared_rel_pos_bias": ("shared_relative_positions", None),
        },
        fixed_input_size=True,
    ),
    tiny=(
        "beit_base_patch16_224",
        {"input_size": 32, "dim": 16, "depth": 2, "num_heads": 2, "shared_relative_positions": True},
    ),
)
