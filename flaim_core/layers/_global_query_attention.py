from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.checks import check_heads, require_fixed
from flaim_core.layers._grid_attention import attend_in_parts, relative_position_table
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope, kernel


@kernel
def global_query_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    query: Float[Array, "b h2 w2 c"],
    *,
    num_heads: int,
    position_bias: Callable = relative_position_table,
) -> Float[Array, "b h w c"]:
    """Multi-head attention to the tokens of each window of `x`, with the same queries in all windows.

    Paths: `qkv`, a linear layer that gives keys and values; `rel_pos`, `proj`. The windows are as large as `query`, a
    map of the whole image, and their height and width must divide those of `x`. `position_bias` is as in
    `block_attention`. Captured on request: `weights` (b, windows, heads, t, t), the softmax.
    Hatamizadeh et al., "Global Context Vision Transformers" (2022), section 3.2.
    """
    dim, window = x.shape[-1], (query.shape[1], query.shape[2])
    require_fixed(scope, "rel_pos", (*window, x.shape[1], x.shape[2]))
    check_heads(scope, dim, num_heads)
    parts = ops.window_partition(x, window)
    count = parts.shape[1]
    pairs = ops.merge_axes(linear(scope["qkv"], parts, 2 * dim), 0)
    key, value = jnp.moveaxis(pairs.reshape(*pairs.shape[:2], 2, num_heads, dim // num_heads), 2, 0)
    query = ops.split_axis(ops.merge_axes(query.astype(x.dtype), 1), 2, dim // num_heads)
    query = jnp.broadcast_to(query[:, None], (query.shape[0], count, *query.shape[1:]))
    y = attend_in_parts(scope, ops.merge_axes(query, 0), key, value, count, position_bias, window)
    return ops.window_reverse(linear(scope["proj"], y, dim), window, (x.shape[1], x.shape[2]))
