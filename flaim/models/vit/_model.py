"""The model function of Vision Transformers, and the ways in which tokens are pooled."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.models.vit._blocks import Tokens, encoder_block
from flaim_core import (
    Scope,
    attention_pool,
    classifier,
    drop_path_schedule,
    dropout,
    gelu,
    initializers,
    kernel,
    layer_norm,
    linear,
    ops,
    patch_embed,
    position_embedding,
)
from flaim_core.checks import check_heads, require_fixed


def class_token_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """The class token."""
    return x[:, 0]


def average_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """The mean of all tokens but the first `num_prefix`."""
    return jnp.mean(x[:, num_prefix:], axis=1)


def class_and_average_pool(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c2"]:
    """The class token, then the mean of all tokens but the first `num_prefix`."""
    return jnp.concatenate([x[:, 0], jnp.mean(x[:, num_prefix:], axis=1)], axis=-1)


def attention_pooling(scope: Scope, x: Tokens, num_prefix: int, **options: Any) -> Float[Array, "b c"]:
    """Attention pooling of all tokens but the first `num_prefix`."""
    return attention_pool(scope["attn_pool"], x[:, num_prefix:], **options)


@kernel
def vit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    num_heads: int,
    patch_size: int | tuple[int, int] = 16,
    mlp_ratio: float = 4.0,
    embed: Callable = patch_embed,
    block: Callable = encoder_block,
    norm: Callable = layer_norm,
    embed_norm: Callable | None = None,
    qk_norm: Callable | None = None,
    sub_norm: Callable | None = None,
    act: Callable = gelu,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    layer_scale_init: float | None = None,
    lambda_init: Callable[[int], float] | None = None,
    class_token: bool = True,
    distilled: bool = False,
    num_registers: int = 0,
    embed_prefix: bool = True,
    drop_remainder: bool = False,
    pre_norm: bool = False,
    final_norm: bool = True,
    fc_norm: bool | None = None,
    pool: Callable = class_token_pool,
    pool_prefix: bool = False,
    pooler: int | None = None,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Stack of equal transformer blocks on patches and prefix tokens: class, distillation and register tokens.

    Each option is one in which published Vision Transformers differ, which is why there are more than 20.

    Args:
        n_classes: 0 gives all tokens, prefix tokens first.
        embed: `patch_embed` or `hybrid_embed`, a convolutional network before it. Captured on request: `patches`, its
            output (b, h, w, dim).
        block: Kernel `(scope, x, **options)`; `_blocks.py` lists the options. Where a block takes kernels `attn` and
            `mlp`, another one may be bound: `partial(encoder_block, mlp=glu)`.
        embed_norm, qk_norm, sub_norm: Norms, where given, of embedded patches, of each head's queries and keys, and
            before the last linear layer of both attention and MLP.
        layer_scale_init: Initial layer scale; None for none.
        lambda_init: Of differential attention, as a function of the block's index; None for other attention.
        distilled: A distillation token with a classifier of its own, `head_dist`; logits are the mean of the two.
        embed_prefix: Prefix tokens have position embeddings too.
        drop_remainder: An image may be larger than a whole number of patches.
        pre_norm: Normalise the tokens before the first block; patches are then embedded without a bias.
        fc_norm: The last norm follows the pooling in the place of preceding it; None where `pool` is `average_pool`.
        pool: Function `(scope, x, num_prefix, *, num_heads, hidden, norm, act)`; with `pool_prefix`, of all tokens.
        pooler: Width of a linear layer with a tanh (path `pooler`) after the pooling; None for none.
        drop_rate, pos_drop_rate, proj_drop_rate: Dropout before the head, after the position embedding, and in blocks.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    if not class_token and (distilled or pool is class_token_pool):
        raise ValueError("a model with class_token=False pools all tokens: give pool=average_pool or attention_pooling")
    check_heads(scope["blocks"], dim, num_heads)
    patches: dict = dict(patch_size=patch_size, bias=not pre_norm, norm=embed_norm, drop_remainder=drop_remainder)
    x = embed(scope["patch_embed"], x, dim, **patches)
    if scope.captures("patches"):
        scope.capture("patches", x)
    require_fixed(scope, "pos_embed", x.shape[1:3])
    x = x.reshape(x.shape[0], -1, dim)

    near_zero, normal = initializers.normal(1e-6), initializers.truncated_normal(0.02)
    prefix = [scope.param("cls_token", (1, 1, dim), near_zero)] if class_token else []
    prefix += [scope.param("dist_token", (1, 1, dim), normal)] if distilled else []
    prefix += [scope.param("reg_token", (1, num_registers, dim), near_zero)] if num_registers else []
    num_prefix = sum(token.shape[1] for token in prefix)
    prefix = [ops.repeat_over_batch(token, x) for token in prefix]
    if embed_prefix:
        x = position_embedding(scope, jnp.concatenate([*prefix, x], axis=1))
    else:
        x = jnp.concatenate([*prefix, position_embedding(scope, x)], axis=1)
    x = dropout(scope["pos_drop"], x, pos_drop_rate)
    if pre_norm:
        x = norm(scope["norm_pre"], x)
    scope.capture("block_0", x)

    hidden = int(dim * mlp_ratio)
    each = {"drop_path_rate": drop_path_schedule(drop_path_rate, depth)}
    if lambda_init is not None:
        each["lambda_init"] = [lambda_init(i) for i in range(depth)]
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        each=each,
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
        num_heads=num_heads,
        hidden=hidden,
        act=act,
        norm=norm,
        qk_norm=qk_norm,
        sub_norm=sub_norm,
        qkv_bias=qkv_bias,
        proj_bias=proj_bias,
        layer_scale_init=layer_scale_init,
        drop_rate=proj_drop_rate,
    )

    fc_norm = pool is average_pool if fc_norm is None else fc_norm
    if final_norm and not fc_norm:
        x = norm(scope["norm"], x)
    if n_classes == 0:
        return x
    if distilled:
        first = classifier(scope["head"], x[:, 0], n_classes, drop_rate=drop_rate)
        return (first + classifier(scope["head_dist"], x[:, 1], n_classes, drop_rate=drop_rate)) / 2
    x = pool(scope, x, 0 if pool_prefix else num_prefix, num_heads=num_heads, hidden=hidden, norm=norm, act=act)
    if final_norm and fc_norm:
        x = norm(scope["fc_norm"], x)
    if pooler is not None:
        x = jnp.tanh(linear(scope["pooler"], x, pooler))
    return classifier(scope["head"], x, n_classes, drop_rate=drop_rate)
