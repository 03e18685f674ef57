from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.scope import Scope, kernel


@kernel
def cross_covariance_attention(
    scope: Scope,
    x: Float[Array, "*b n c"],
    *,
    num_heads: int,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "*b n c"]:
    """Multi-head self-attention among channels instead of tokens (XCA), at a cost that is linear in the tokens.

    Leaf: `temperature` (heads, 1, 1), which multiplies the products of queries and keys; both are normalised over the
    tokens. Paths: `qkv`, `proj`. Captured on request: `weights` (*b, heads, d, d), the softmax.
    El-Nouby et al., "XCiT: Cross-Covariance Image Transformers" (2021), section 3.2.
    """
    query, key, value = qkv_projection(scope, x, num_heads=num_heads, bias=qkv_bias)
    # In the dtype of the softmax.
    dtype = ops.accumulation_dtype(x)
    temperature = scope.param("temperature", (num_heads, 1, 1), initializers.ones, dtype=dtype)[:, 0, 0]
    if scope.captures("weights"):
        scope.capture("weights", ops.channel_attention_weights(query, key, temperature))
    y = ops.channel_attention(query, key, value, temperature)
    return heads_projection(scope, y, bias=proj_bias, drop_rate=drop_rate)
