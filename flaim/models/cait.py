"""CaiT: deep Vision Transformers with layer scale, whose class token enters after the patches have been processed.

Touvron et al., "Going Deeper with Image Transformers" (2021); the heads of the attention among patches talk to each
other, as in Shazeer et al., "Talking-Heads Attention" (2020). The reference implementation is timm's `cait.py`. Its
position embeddings are of one size; we resample them for another when weights are loaded, as for ViT. We leave out
dropout inside the blocks.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import (
    Scope,
    class_attention,
    classifier,
    drop_path,
    gelu,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    mlp,
    ops,
    patch_embed,
    position_embedding,
    talking_heads_attention,
)
from flaim_core.checks import check_heads, require_fixed


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    layer_scale_init: float = 1e-5,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b n c"]:
    """Talking-heads attention among patches, then an MLP: residual branches that normalise first."""

    def branch(number: int, y: Array) -> Array:
        y = layer_scale(scope, y, init_value=layer_scale_init, leaf=f"gamma_{number}")
        return drop_path(scope[f"drop_path{number}"], y, drop_path_rate)

    y = norm(scope["norm1"], x)
    x = x + branch(1, talking_heads_attention(scope["attn"], y, num_heads=num_heads, qkv_bias=qkv_bias))
    y = norm(scope["norm2"], x)
    return x + branch(2, mlp(scope["mlp"], y, hidden=int(mlp_ratio * x.shape[-1]), act=act))


@kernel
def class_block(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    layer_scale_init: float = 1e-5,
) -> Float[Array, "b 1 c"]:
    """The class token, which is the first of `x`, after it has attended to all tokens, and an MLP."""
    scale: dict = dict(init_value=layer_scale_init)
    y = class_attention(scope["attn"], norm(scope["norm1"], x), num_heads=num_heads, qkv_bias=qkv_bias)
    token = x[:, :1] + layer_scale(scope, y, leaf="gamma_1", **scale)
    y = mlp(scope["mlp"], norm(scope["norm2"], token), hidden=int(mlp_ratio * x.shape[-1]), act=act)
    return token + layer_scale(scope, y, leaf="gamma_2", **scale)


@kernel
def cait(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    num_heads: int,
    patch_size: int = 16,
    class_depth: int = 2,
    mlp_ratio: float = 4.0,
    class_mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    layer_scale_init: float = 1e-5,
    norm: Callable = layer_norm,
    act: Callable = gelu,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Blocks on the patches, then blocks in which the class token gathers from them what is to be classified.

    Args:
        n_classes: 0 gives all tokens, the class token first.
        depth, class_depth: Number of blocks on the patches, and of those of the class token.
        layer_scale_init: Initial value of the layer scales; smaller in deeper models.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of every block on the patches; there is none in the class token's blocks.
    """
    check_heads(scope["blocks"], dim, num_heads)
    x = patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size)
    require_fixed(scope, "pos_embed", x.shape[1:3])
    x = position_embedding(scope, ops.merge_axes(x, 1))
    scope.capture("block_0", x)

    options: dict = dict(num_heads=num_heads, qkv_bias=qkv_bias, norm=norm, act=act, layer_scale_init=layer_scale_init)
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
        mlp_ratio=mlp_ratio,
        drop_path_rate=drop_path_rate,
        **options,
    )

    token = scope.param("cls_token", (1, 1, dim), initializers.truncated_normal(0.02))
    token = ops.repeat_over_batch(token, x)
    for i in range(class_depth):
        tokens = jnp.concatenate([token, x], axis=1)
        token = scope["blocks_token_only"][i].call(class_block, tokens, mlp_ratio=class_mlp_ratio, **options)
    if n_classes == 0:
        return norm(scope["norm"], jnp.concatenate([token, x], axis=1))
    return classifier(scope["head"], norm(scope["norm"], token[:, 0]), n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "cait_xxs24_224": dict(dim=192, depth=24, num_heads=4),
    "cait_xxs24_384": dict(dim=192, depth=24, num_heads=4, input_size=384),
    "cait_xxs36_224": dict(dim=192, depth=36, num_heads=4),
    "cait_xxs36_384": dict(dim=192, depth=36, num_heads=4, input_size=384),
    "cait_xs24_384": dict(dim=288, depth=24, num_heads=6, input_size=384),
    "cait_s24_224": dict(dim=384, depth=24, num_heads=8),
    "cait_s24_384": dict(dim=384, depth=24, num_heads=8, input_size=384),
    "cait_s36_384": dict(dim=384, depth=36, num_heads=8, layer_scale_init=1e-6, input_size=384),
    "cait_m36_384": dict(dim=768, depth=36, num_heads=16, layer_scale_init=1e-6, input_size=384),
    "cait_m48_448": dict(dim=768, depth=48, num_heads=16, layer_scale_init=1e-6, input_size=448),
}

FAMILY = Family(
    cait,
    "head",
    VARIANTS,
    timm=Timm(
        ("cait",),
        {
            "depth": ("depth", None),
            "depth_token_only": ("class_depth", None),
            "embed_dim": ("dim", None),
            "init_values": ("layer_scale_init", None),
            "mlp_ratio": ("mlp_ratio", None),
            "mlp_ratio_token_only": ("class_mlp_ratio", None),
            "num_heads": ("num_heads", None),
            "patch_size": ("patch_size", None),
            "qkv_bias": ("qkv_bias", None),
        },
        fixed_input_size=True,
    ),
    tiny=("cait_xxs24_224", {"input_size": 32, "dim": 16, "depth": 2, "num_heads": 2, "class_depth": 1}),
)
