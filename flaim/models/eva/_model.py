"""The model function of EVA and its descendants, and the ways in which tokens are pooled."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.models.eva._blocks import Tokens, eva_block, mixed_rotary_block, rotary_attention, rotary_block
from flaim_core import (
    Scope,
    attention_pool,
    classifier,
    drop_path_schedule,
    dropout,
    initializers,
    kernel,
    layer_norm,
    mlp,
    ops,
    patch_embed,
    position_embedding,
    rotary_frequencies,
)
from flaim_core.checks import check_heads, require_fixed


def class_token_pool(scope: Scope, x: Tokens, num_prefix: int, norm: Callable) -> Float[Array, "b c"]:
    """The class token."""
    return x[:, 0]


def average_pool(scope: Scope, x: Tokens, num_prefix: int, norm: Callable) -> Float[Array, "b c"]:
    """The mean of all tokens but the first `num_prefix`."""
    return jnp.mean(x[:, num_prefix:], axis=1)


def attention_pooling(
    scope: Scope, x: Tokens, num_prefix: int, norm: Callable, *, num_heads: int = 8, mlp_ratio: float = 4.0
) -> Float[Array, "b c"]:
    """Attention pooling of all tokens."""
    hidden = int(x.shape[-1] * mlp_ratio)
    return attention_pool(scope["attn_pool"], x, num_heads=num_heads, hidden=hidden, norm=norm)


@kernel
def eva(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    num_heads: int,
    num_kv_heads: Sequence[int] | None = None,
    patch_size: int | tuple[int, int] = 16,
    mlp_ratio: float = 4.0,
    block: Callable = eva_block,
    attn: Callable = rotary_attention,
    mlp: Callable = mlp,
    norm: Callable = layer_norm,
    qkv_bias: bool = True,
    layer_scale_init: float | None = None,
    rope: Callable | None = None,
    absolute_positions: bool = True,
    class_token: bool = True,
    num_registers: int = 0,
    embed_prefix: bool = True,
    pre_norm: bool = False,
    final_norm: bool = True,
    fc_norm: bool | None = None,
    pool: Callable = average_pool,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Stack of transformer blocks on patches and prefix tokens (class and register tokens), with rotary attention.

    Each option is one in which the published models differ, which is why there are more than 20.

    Args:
        n_classes: 0 gives all tokens, prefix tokens first.
        num_kv_heads: The number of heads that keys and values have in each block; `num_heads` if not given.
        block: `eva_block` or `post_norm_block`, which take the kernels `attn` and `mlp`.
        attn: `rotary_attention`, where its options `interleaved`, `project`, `qk_norm` and `norm` may be bound.
        mlp: Kernel `(scope, x, *, hidden, drop_rate)`.
        layer_scale_init: Initial layer scale; None for none.
        rope: The angles that tokens are rotated by, as a function `(grid, head width)`: `ops.axial_angles` or
            `ops.centred_angles`; or `ops.mixed_angles`, whose frequencies are learned (path `rope`). Prefix tokens are
            not rotated. None for no rotation.
        absolute_positions: Add a learned position embedding, too.
        embed_prefix: Prefix tokens have absolute positions too.
        pre_norm: Normalise the tokens before the first block; patches are then embedded without a bias.
        fc_norm: The last norm follows the pooling in the place of preceding it; None where `pool` is `average_pool`.
        pool: Function `(scope, x, num_prefix, norm)`.
        drop_rate, pos_drop_rate, proj_drop_rate: Dropout before the head, after the position embedding, and in blocks.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    if not class_token and pool is class_token_pool:
        raise ValueError("a model with class_token=False has no class token to pool: give pool=average_pool")
    check_heads(scope["blocks"], dim, num_heads)
    x = patch_embed(scope["patch_embed"], x, dim, patch_size=patch_size, bias=not pre_norm)
    grid = x.shape[1], x.shape[2]
    x = ops.merge_axes(x, 1)
    x, num_prefix = _embedded(scope, x, grid, absolute_positions, class_token, num_registers, embed_prefix)
    x = dropout(scope["pos_drop"], x, pos_drop_rate)
    if pre_norm:
        x = norm(scope["norm_pre"], x)
    scope.capture("block_0", x)

    mixed = rope is ops.mixed_angles
    carried: Any = x
    options: dict = dict(
        inner=block,
        attn=attn,
        mlp=mlp,
        norm=norm,
        num_heads=num_heads,
        num_prefix=num_prefix,
        hidden=int(dim * mlp_ratio),
        qkv_bias=qkv_bias,
        layer_scale_init=layer_scale_init,
        drop_rate=proj_drop_rate,
    )
    if mixed:
        carried = x, rotary_frequencies(scope["rope"], x, depth=depth, num_heads=num_heads)
        options |= {"grid": grid}
    else:
        options |= {"angles": None if rope is None else partial(rope, grid, dim // num_heads)}

    def after(i: int, x: Any) -> None:
        scope.capture(f"block_{i + 1}", x[0] if mixed else x)

    run: Callable = mixed_rotary_block if mixed else rotary_block
    rates, blocks = drop_path_schedule(drop_path_rate, depth), scope["blocks"]
    if num_kv_heads is None:
        carried = blocks.repeat(run, carried, depth, each={"drop_path_rate": rates}, after=after, **options)
    else:
        for i, rate, heads in zip(range(depth), rates, num_kv_heads, strict=True):
            carried = blocks[i].call(run, carried, drop_path_rate=rate, num_kv_heads=heads, **options)
            after(i, carried)
    x = carried[0] if mixed else carried

    fc_norm = pool is average_pool if fc_norm is None else fc_norm
    if final_norm and not fc_norm:
        x = norm(scope["norm"], x)
    if n_classes == 0:
        return x
    x = pool(scope, x, num_prefix, norm)
    if final_norm and fc_norm:
        x = norm(scope["fc_norm"], x)
    return classifier(scope["head"], x, n_classes, drop_rate=drop_rate)


def _embedded(
    scope: Scope,
    x: Tokens,
    grid: ops.Sizes,
    absolute_positions: bool,
    class_token: bool,
    num_registers: int,
    embed_prefix: bool,
) -> tuple[Float[Array, "b m c"], int]:
    """The patches with prefix tokens before them and position embeddings added; and the number of prefix tokens."""
    if absolute_positions:
        require_fixed(scope, "pos_embed", grid)
        if not embed_prefix:
            x = position_embedding(scope, x)
    normal, dim = initializers.truncated_normal(0.02), x.shape[-1]
    prefix = [scope.param("cls_token", (1, 1, dim), normal)] if class_token else []
    prefix += [scope.param("reg_token", (1, num_registers, dim), normal)] if num_registers else []
    x = jnp.concatenate([*(ops.repeat_over_batch(token, x) for token in prefix), x], axis=1)
    if absolute_positions and embed_prefix:
        x = position_embedding(scope, x)
    return x, sum(token.shape[1] for token in prefix)
