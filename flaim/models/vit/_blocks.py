"""The transformer blocks of a Vision Transformer.

A block is a kernel `(scope, x, **options)`. All blocks take the same options: `num_heads`, `hidden` (the width of the
MLP's hidden layer), `act`, `norm`, `qk_norm`, `sub_norm`, `qkv_bias`, `proj_bias`, `layer_scale_init`, `drop_rate` and
`drop_path_rate`, which mean what they do in `vit`; with differential attention `lambda_init`, too.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import (
    Scope,
    attend,
    attention,
    differential_heads,
    drop_path,
    dropout,
    gelu,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    mlp,
    ops,
)

Rate = float | Float[Array, ""]
Tokens = Float[Array, "b n c"]


def bind(
    attn: Callable,
    mlp: Callable,
    *,
    num_heads: int,
    hidden: int,
    act: Callable = gelu,
    qk_norm: Callable | None = None,
    sub_norm: Callable | None = None,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    drop_rate: float = 0.0,
    **attn_options: Rate,
) -> tuple[Callable, Callable]:
    """The kernels `attn` and `mlp` with a block's options bound; `attn_options` are those of its attention alone."""
    attn = partial(
        attn,
        num_heads=num_heads,
        qkv_bias=qkv_bias,
        proj_bias=proj_bias,
        qk_norm=qk_norm,
        norm=sub_norm,
        drop_rate=drop_rate,
        **attn_options,
    )
    mlp = partial(mlp, hidden=hidden, act=act, bias=proj_bias, norm=sub_norm, drop_rate=drop_rate)
    return attn, mlp


def _branch(scope: Scope, number: str, y: Tokens, layer_scale_init: float | None, rate: Rate) -> Tokens:
    """The end of residual branch `number`: layer scale, where there is one, and stochastic depth."""
    if layer_scale_init is not None:
        y = layer_scale(scope[f"ls{number}"], y, init_value=layer_scale_init)
    return drop_path(scope[f"drop_path{number}"], y, rate)


@kernel
def encoder_block(
    scope: Scope,
    x: Tokens,
    *,
    attn: Callable = attention,
    mlp: Callable = mlp,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
    **options: Any,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises first; `bind` has the other options."""
    attn, mlp = bind(attn, mlp, **options)
    y = attn(scope["attn"], norm(scope["norm1"], x))
    x = x + _branch(scope, "1", y, layer_scale_init, drop_path_rate)
    y = mlp(scope["mlp"], norm(scope["norm2"], x))
    return x + _branch(scope, "2", y, layer_scale_init, drop_path_rate)


@kernel
def res_post_block(
    scope: Scope,
    x: Tokens,
    *,
    attn: Callable = attention,
    mlp: Callable = mlp,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
    **options: Any,
) -> Tokens:
    """Attention, then an MLP, each a residual branch that normalises last; the norm's scale is the layer scale."""
    attn, mlp = bind(attn, mlp, **options)
    scale_init = initializers.ones if layer_scale_init is None else initializers.constant(layer_scale_init)
    y = norm(scope["norm1"], attn(scope["attn"], x), scale_init=scale_init)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    y = norm(scope["norm2"], mlp(scope["mlp"], x), scale_init=scale_init)
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def parallel_things_block(
    scope: Scope,
    x: Tokens,
    *,
    attn: Callable = attention,
    mlp: Callable = mlp,
    num_parallel: int = 2,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: Rate = 0.0,
    **options: Any,
) -> Tokens:
    """Several attentions side by side, then as many MLPs. Touvron et al., "Three Things" (2022), section 3."""
    attn, mlp = bind(attn, mlp, **options)
    for name, inner, branch in ("attns", "attn", attn), ("ffns", "mlp", mlp):
        total = x
        for i in range(num_parallel):
            node = scope[name][i]
            y = branch(node[inner], norm(node["norm"], x))
            total = total + _branch(node, "", y, layer_scale_init, drop_path_rate)
        x = total
    return x


def _merged_input(
    scope: Scope, x: Tokens, hidden: int, *, norm: Callable, sub_norm: Callable | None, qkv_bias: bool
) -> list[Array]:
    """The MLP's hidden layer, queries, keys and values from one norm and one linear layer."""
    if sub_norm is not None:
        raise ValueError("blocks that merge attention and MLP have no place for sub_norm: leave it out")
    dim = x.shape[-1]
    y = linear(scope["in_proj"], norm(scope["in_norm"], x), hidden + 3 * dim, bias=qkv_bias)
    h, *qkv = jnp.split(y, (hidden, hidden + dim, hidden + 2 * dim), axis=-1)
    if not qkv_bias:
        h = h + ops.per_channel(scope.param("mlp_bias", (hidden,), initializers.zeros), h)
    return [h, *qkv]


@kernel
def parallel_scaling_block(
    scope: Scope,
    x: Tokens,
    *,
    num_heads: int,
    hidden: int,
    act: Callable = gelu,
    norm: Callable = layer_norm,
    qk_norm: Callable | None = None,
    sub_norm: Callable | None = None,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    layer_scale_init: float | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Attention and MLP side by side, their first layers merged. Dehghani et al., "ViT-22B" (2023), section 2."""
    dim = x.shape[-1]
    h, *qkv = _merged_input(scope, x, hidden, norm=norm, sub_norm=sub_norm, qkv_bias=qkv_bias)
    query, key, value = (y.reshape(*y.shape[:-1], num_heads, dim // num_heads) for y in qkv)
    if qk_norm is not None:
        query, key = qk_norm(scope["q_norm"], query), qk_norm(scope["k_norm"], key)
    y = attend(scope["attn"], query, key, value).reshape(x.shape)
    y = linear(scope["attn_out_proj"], y, dim, bias=proj_bias)
    h = dropout(scope["mlp_drop"], act(h), drop_rate)
    y = y + linear(scope["mlp_out_proj"], h, dim, bias=proj_bias)
    return x + _branch(scope, "", y, layer_scale_init, drop_path_rate)


@kernel
def diff_parallel_scaling_block(
    scope: Scope,
    x: Tokens,
    *,
    num_heads: int,
    hidden: int,
    lambda_init: Rate,
    act: Callable = gelu,
    norm: Callable = layer_norm,
    qk_norm: Callable | None = None,
    sub_norm: Callable | None = None,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    layer_scale_init: float | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
) -> Tokens:
    """Differential attention and MLP side by side, their first layers merged, and their last."""
    h, query, key, value = _merged_input(scope, x, hidden, norm=norm, sub_norm=sub_norm, qkv_bias=qkv_bias)
    heads: dict = dict(num_heads=num_heads, qk_norm=qk_norm, lambda_init=lambda_init)
    y = differential_heads(scope, query, key, value, captured=scope["attn"], **heads)
    h = dropout(scope["mlp_drop"], act(h), drop_rate)
    y = linear(scope["out_proj"], jnp.concatenate([y, h], axis=-1), x.shape[-1], bias=proj_bias)
    return x + _branch(scope, "", y, layer_scale_init, drop_path_rate)


def differential_schedule(index: int) -> float:
    """`lambda_init` of differential attention in block `index`, counted from 0."""
    return 0.8 - 0.6 * math.exp(-0.3 * index)
