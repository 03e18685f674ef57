"""Projections into the heads of multi-head attention, and out of them."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import check_heads
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope, kernel


@kernel
def qkv_projection(
    scope: Scope, x: Float[Array, "*b n c"], *, num_heads: int, bias: bool = True, key_bias: bool = True
) -> tuple[Float[Array, "*b n h d"], Float[Array, "*b n h d"], Float[Array, "*b n h d"]]:
    """Queries, keys and values of `n` tokens, `h` heads each, from one linear layer (path `qkv`).

    With `key_bias=False` keys have no bias; the leaves `q_bias` and `v_bias`, (c,), are the biases of the others.
    Raises ValueError if the heads do not divide the width. Vaswani et al., "Attention Is All You Need" (2017), 3.2.2.
    """
    *batch, tokens, dim = x.shape
    check_heads(scope, dim, num_heads)
    qkv = linear(scope["qkv"], x, 3 * dim, bias=bias and key_bias)
    if bias and not key_bias:
        q_bias, v_bias = (scope.param(name, (dim,), initializers.zeros) for name in ("q_bias", "v_bias"))
        qkv = qkv + ops.per_channel(jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]), qkv)
    qkv = qkv.reshape(*batch, tokens, 3, num_heads, dim // num_heads)
    return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]


@kernel
def heads_projection(
    scope: Scope,
    x: Float[Array, "*b n h d"],
    features: int | None = None,
    *,
    norm: Callable | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "*b n f"]:
    """The heads joined and projected by a linear layer (path `proj`) to `features`, by default as wide as all of them.

    `norm`, a kernel, comes before (path `norm`), dropout after. Vaswani et al. (2017), section 3.2.2.
    """
    x = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    if norm is not None:
        x = norm(scope["norm"], x)
    return dropout(scope["proj_drop"], linear(scope["proj"], x, features or x.shape[-1], bias=bias), drop_rate)
