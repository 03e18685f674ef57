from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.scope import Scope, kernel


def attend(
    scope: Scope,
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h v"],
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*b q h v"]:
    """`ops.dot_product_attention`. Captured on request (`scope.captures`): `weights` (*b, h, q, k), the softmax."""
    if scope.captures("weights"):
        scope.capture("weights", ops.attention_weights(query, key, bias, scale))
    return ops.dot_product_attention(query, key, value, bias, scale)


@kernel
def attention(
    scope: Scope,
    x: Float[Array, "*b n c"],
    *,
    num_heads: int,
    qkv_bias: bool = True,
    key_bias: bool = True,
    proj_bias: bool = True,
    qk_norm: Callable | None = None,
    norm: Callable | None = None,
    bias: Float[Array, "..."] | None = None,
    drop_rate: float = 0.0,
) -> Float[Array, "*b n c"]:
    """Multi-head self-attention among `n` tokens.

    Paths: `qkv`, `proj`; `q_norm` and `k_norm` if `qk_norm` is given, a kernel that is applied to each head; `norm` if
    `norm` is given, a kernel that is applied before `proj`. `bias` is added to the logits and broadcasts to
    (*b, heads, n, n). With `key_bias=False` keys have no bias; the leaves `q_bias` and `v_bias`, (c,), are the others'.
    Captured on request: `weights` (*b, heads, n, n), the softmax.
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2.
    """
    query, key, value = qkv_projection(scope, x, num_heads=num_heads, bias=qkv_bias, key_bias=key_bias)
    if qk_norm is not None:
        query, key = qk_norm(scope["q_norm"], query), qk_norm(scope["k_norm"], key)
    y = attend(scope, query, key, value, bias)
    return heads_projection(scope, y, norm=norm, bias=proj_bias, drop_rate=drop_rate)
