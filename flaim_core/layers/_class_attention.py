from jaxtyping import Array, Float

from flaim_core.checks import check_heads
from flaim_core.layers._attention import attend
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope, kernel


@kernel
def class_attention(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b 1 c"]:
    """Multi-head attention of the first token, the class token, to all `n` tokens, itself included.

    Paths: `q`, `k`, `v`, `proj`. Captured on request: `weights` (b, heads, 1, n), the softmax.
    Touvron et al., "Going Deeper with Image Transformers" (2021), section 3.
    """
    batch, tokens, dim = x.shape
    check_heads(scope, dim, num_heads)
    query = linear(scope["q"], x[:, :1], dim, bias=qkv_bias).reshape(batch, 1, num_heads, dim // num_heads)
    key, value = (
        linear(scope[name], x, dim, bias=qkv_bias).reshape(batch, tokens, num_heads, dim // num_heads) for name in "kv"
    )
    y = attend(scope, query, key, value).reshape(batch, 1, dim)
    return dropout(scope["proj_drop"], linear(scope["proj"], y, dim, bias=proj_bias), drop_rate)
