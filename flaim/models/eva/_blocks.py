"""Attention with rotary position embedding, and the transformer blocks around it.

A block is a plain function `(scope, x, *, rotation, **options)`. The kernels `rotary_block` and `mixed_rotary_block`
compute the rotation and call it, so that a block of the model needs no arrays but its input.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import (
    Scope,
    attend,
    drop_path,
    dropout,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    mlp,
    ops,
    packed_glu,
)
from flaim_core.checks import check_heads

Rate = float | Float[Array, ""]
Tokens = Float[Array, "b n c"]
Frequencies = Float[Array, "2 depth h f"]
Rotation = tuple[Float[Array, "n _ f"], Float[Array, "n _ f"]]


def merged_projection(scope: Scope, x: Tokens, key_width: int, *, bias: bool) -> list[Array]:
    """Queries, keys and values from one linear layer, `qkv`."""
    return jnp.split(linear(scope["qkv"], x, 3 * x.shape[-1], bias=bias), 3, axis=-1)


def keyless_bias_projection(scope: Scope, x: Tokens, key_width: int, *, bias: bool) -> list[Array]:
    """`merged_projection` with biases for queries and values alone, in leaves of their own: `q_bias`, `v_bias`."""
    query, key, value = merged_projection(scope, x, key_width, bias=False)
    if bias:
        query, value = (
            y + ops.per_channel(scope.param(name, y.shape[-1:], initializers.zeros), y)
            for name, y in (("q_bias", query), ("v_bias", value))
        )
    return [query, key, value]


def split_projection(scope: Scope, x: Tokens, key_width: int, *, bias: bool, key_bias: bool = False) -> list[Array]:
    """Queries, keys and values from linear layers `q_proj`, `k_proj` and `v_proj`."""
    return [
        linear(scope["q_proj"], x, x.shape[-1], bias=bias),
        linear(scope["k_proj"], x, key_width, bias=bias and key_bias),
        linear(scope["v_proj"], x, key_width, bias=bias),
    ]


@kernel
def rotary_attention(
    scope: Scope,
    x: Tokens,
    *,
    num_heads: int,
    num_kv_heads: int | None = None,
    rotation: Rotation | None = None,
    interleaved: bool = True,
    project: Callable = keyless_bias_projection,
    qkv_bias: bool = True,
    qk_norm: Callable | None = None,
    norm: Callable | None = None,
    drop_rate: float = 0.0,
) -> Tokens:
    """Multi-head self-attention with queries and keys that `ops.rotate` rotates by `rotation`.

    Paths: those of `project`; `q_norm` and `k_norm` if `qk_norm` is given, `norm` if `norm` is given, and `proj`. With
    `num_kv_heads`, each key and value serves several heads: Ainslie et al., "GQA" (2023).
    """
    dim = x.shape[-1]
    check_heads(scope, dim, num_heads)
    num_kv_heads = num_kv_heads or num_heads
    check_heads(scope, num_heads, num_kv_heads)
    width = dim // num_heads
    qkv = project(scope, x, num_kv_heads * width, bias=qkv_bias)
    query, key, value = (ops.split_axis(y, 2, width) for y in qkv)
    if qk_norm is not None:
        query, key = qk_norm(scope["q_norm"], query), qk_norm(scope["k_norm"], key)
    if rotation is not None:
        query, key = (ops.rotate(y, *rotation, interleaved=interleaved) for y in (query, key))
    if num_kv_heads < num_heads:
        key, value = (jnp.repeat(y, num_heads // num_kv_heads, axis=2) for y in (key, value))
    y = ops.merge_axes(attend(scope, query, key, value), 2)
    if norm is not None:
        y = norm(scope["norm"], y)
    return dropout(scope["proj_drop"], linear(scope["proj"], y, dim), drop_rate)


def packed_swiglu(scope: Scope, x: Tokens, *, hidden: int, **options: Any) -> Tokens:
    """`packed_glu` with a gated layer of width `hidden`, of twice this width before the gates."""
    return packed_glu(scope, x, hidden=2 * hidden, **options)


def eva_block(
    scope: Scope,
    x: Tokens,
    *,
    attn: Callable = rotary_attention,
    mlp: Callable = mlp,
    hidden: int,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    scale_mlp: bool = True,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
    **options: Any,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises first; `options` are those of `attn`.

    Leaves: the layer scales `gamma_1` and, unless `scale_mlp` is False, `gamma_2`.
    """

    def scaled(leaf: str, y: Tokens) -> Tokens:
        return y if layer_scale_init is None else layer_scale(scope, y, init_value=layer_scale_init, leaf=leaf)

    y = attn(scope["attn"], norm(scope["norm1"], x), drop_rate=drop_rate, **options)
    x = x + drop_path(scope["drop_path1"], scaled("gamma_1", y), drop_path_rate)
    y = mlp(scope["mlp"], norm(scope["norm2"], x), hidden=hidden, drop_rate=drop_rate)
    return x + drop_path(scope["drop_path2"], scaled("gamma_2", y) if scale_mlp else y, drop_path_rate)


def post_norm_block(
    scope: Scope,
    x: Tokens,
    *,
    attn: Callable = rotary_attention,
    mlp: Callable = mlp,
    hidden: int,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
    **options: Any,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises last; without layer scales."""
    if layer_scale_init is not None:
        raise ValueError(f"{'/'.join(scope.path)}: post_norm_block has no layer scale: leave out layer_scale_init")
    y = attn(scope["attn"], x, drop_rate=drop_rate, **options)
    x = x + drop_path(scope["drop_path1"], norm(scope["norm1"], y), drop_path_rate)
    y = mlp(scope["mlp"], x, hidden=hidden, drop_rate=drop_rate)
    return x + drop_path(scope["drop_path2"], norm(scope["norm2"], y), drop_path_rate)


@kernel
def rotary_block(
    scope: Scope, x: Tokens, *, inner: Callable, angles: Callable | None, num_prefix: int, **options: Any
) -> Tokens:
    """The block `inner`, in which tokens are rotated by the result of `angles`, a constant of the program."""
    rotation = None if angles is None else _rotation(angles(), x, num_prefix)
    return inner(scope, x, rotation=rotation, **options)


@kernel
def mixed_rotary_block(
    scope: Scope, x: tuple[Tokens, Frequencies], *, inner: Callable, grid: ops.Sizes, num_prefix: int, **options: Any
) -> tuple[Tokens, Frequencies]:
    """The block `inner` with the first of the frequencies, which go to the end then: the next block has the next."""
    tokens, frequencies = x
    angles = ops.mixed_angles(frequencies[:, 0], grid)
    tokens = inner(scope, tokens, rotation=_rotation(angles, tokens, num_prefix), **options)
    return tokens, jnp.concatenate([frequencies[:, 1:], frequencies[:, :1]], axis=1)


def _rotation(angles: Any, x: Tokens, num_prefix: int) -> Rotation:
    return ops.rotation(angles, fixed=num_prefix, dtype=ops.accumulation_dtype(x))
