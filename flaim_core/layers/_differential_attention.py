from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.layers._norm import rms_norm
from flaim_core.scope import Scope, kernel


def differential_heads(
    scope: Scope,
    query: Float[Array, "b n c"],
    key: Float[Array, "b n c"],
    value: Float[Array, "b n c"],
    *,
    num_heads: int,
    lambda_init: float | Float[Array, ""],
    qk_norm: Callable | None = None,
    captured: Scope | None = None,
) -> Float[Array, "b n c"]:
    """For each head, the difference of two attention maps times the values, normalised and scaled by `1 - lambda_init`.

    Leaves: `lambda_q1`, `lambda_k1`, `lambda_q2`, `lambda_k2`, of which the second map's weight is computed. Paths:
    `sub_norm`; `q_norm` and `k_norm` if `qk_norm` is given. This is a plain function, not a kernel: the leaves belong
    to the caller's scope. Captured on request, in the scope `captured` (`scope` unless given): `weights`
    (b, 2 * heads, n, n), the two maps of each head one after the other.
    """
    batch, tokens, dim = value.shape
    if dim % (2 * num_heads):
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} does not divide into {num_heads} pairs of heads")
    width = dim // num_heads // 2
    query, key = (x.reshape(batch, tokens, num_heads, 2, width) for x in (query, key))
    value = value.reshape(batch, tokens, num_heads, 2 * width)
    if qk_norm is not None:
        query, key = qk_norm(scope["q_norm"], query), qk_norm(scope["k_norm"], key)

    def weight(i: int) -> Float[Array, ""]:
        dtype, init = ops.accumulation_dtype(value), initializers.normal(0.1)
        first, second = (scope.param(f"lambda_{name}{i}", (width,), init, dtype=dtype) for name in "qk")
        return jnp.exp(jnp.sum(first * second))

    captured = scope if captured is None else captured
    if captured.captures("weights"):
        first, second = (x.reshape(batch, tokens, 2 * num_heads, width) for x in (query, key))
        captured.capture("weights", ops.attention_weights(first, second))
    first, second = (ops.dot_product_attention(query[..., i, :], key[..., i, :], value) for i in range(2))
    y = first - (weight(1) - weight(2) + lambda_init).astype(value.dtype) * second
    y = rms_norm(scope["sub_norm"], y, eps=1e-5) * jnp.asarray(1 - lambda_init, value.dtype)
    return y.reshape(batch, tokens, dim)


@kernel
def differential_attention(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    lambda_init: float | Float[Array, ""],
    qkv_bias: bool = True,
    proj_bias: bool = True,
    qk_norm: Callable | None = None,
    norm: Callable | None = None,
    drop_rate: float = 0.0,
) -> Float[Array, "b n c"]:
    """Self-attention with the difference of two attention maps, which cancels attention noise that both have.

    Paths: `qkv`, `proj`; `norm` if `norm` is given, a kernel that is applied before `proj`; those of
    `differential_heads`. Ye et al., "Differential Transformer" (2024), section 2.1, where
    `lambda_init = 0.8 - 0.6 * exp(-0.3 * i)` in block `i`, counted from 0.
    """
    query, key, value = jnp.split(linear(scope["qkv"], x, 3 * x.shape[-1], bias=qkv_bias), 3, axis=-1)
    y = differential_heads(scope, query, key, value, num_heads=num_heads, lambda_init=lambda_init, qk_norm=qk_norm)
    if norm is not None:
        y = norm(scope["norm"], y)
    return dropout(scope["proj_drop"], linear(scope["proj"], y, x.shape[-1], bias=proj_bias), drop_rate)
