from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import check_heads
from flaim_core.layers._attention import attend
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import gelu, mlp
from flaim_core.layers._norm import layer_norm
from flaim_core.scope import Scope, kernel


@kernel
def attention_pool(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    hidden: int,
    norm: Callable = layer_norm,
    act: Callable = gelu,
) -> Float[Array, "b c"]:
    """Pool tokens by attention with one learned query, followed by a residual MLP of width `hidden`.

    Leaf: `latent`, the query before its projection. Paths: `q`, `kv`, `proj`, `norm`, `mlp`. This is multi-head
    attention pooling (MAP) of Zhai et al., "Scaling Vision Transformers" (2022), section 2.2.
    """
    batch, tokens, dim = x.shape
    check_heads(scope, dim, num_heads)
    latent = scope.param("latent", (1, 1, dim), initializers.truncated_normal(dim**-0.5))
    query = linear(scope["q"], latent, dim).reshape(1, 1, num_heads, dim // num_heads)
    query = ops.repeat_over_batch(query, x)
    keys_values = linear(scope["kv"], x, 2 * dim).reshape(batch, tokens, 2, num_heads, dim // num_heads)
    y = attend(scope, query, keys_values[:, :, 0], keys_values[:, :, 1]).reshape(batch, dim)
    y = linear(scope["proj"], y, dim)
    return y + mlp(scope["mlp"], norm(scope["norm"], y), hidden=hidden, act=act)
