from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import check_heads, require_fixed
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import relu
from flaim_core.scope import Scope, kernel

_TABLE = "relative_position_bias_table"


@kernel
def relative_position_table(
    scope: Scope, query: Float[Array, "*b t h d"], *, size: tuple[int, int]
) -> Float[Array, "h t t"]:
    """Attention bias: a learned number for each head and each offset of the query from the key.

    Leaf: `relative_position_bias_table` ((2 * height - 1) * (2 * width - 1) offsets, heads), for `size` (height,
    width). `query` gives the number of heads. Liu et al., "Swin Transformer" (2021), section 3.2.
    """
    offsets = (2 * size[0] - 1) * (2 * size[1] - 1)
    # In the dtype of the softmax.
    dtype, init = ops.accumulation_dtype(query), initializers.truncated_normal(0.02)
    table = scope.param(_TABLE, (offsets, query.shape[-2]), init, dtype=dtype)
    return ops.gather_bias(table, ops.relative_position_index(size))


@kernel
def relative_position_map(
    scope: Scope, query: Float[Array, "*b t h d"], *, size: tuple[int, int]
) -> Float[Array, "h t t"]:
    """Attention bias: a learned number for each head and each offset of the key from the query.

    Leaf: `relative_position_bias_table` (heads, 2 * height - 1, 2 * width - 1), for `size` (height, width): the table
    of MaxViT's TensorFlow implementation, whose offsets have the opposite sign of `relative_position_table`'s.
    """
    heads = query.shape[-2]
    shape = (heads, 2 * size[0] - 1, 2 * size[1] - 1)
    dtype = ops.accumulation_dtype(query)
    table = scope.param(_TABLE, shape, initializers.truncated_normal(0.02), dtype=dtype)
    return ops.gather_bias(table.reshape(heads, -1).T, ops.relative_position_index(size).T)


@kernel
def relative_position_mlp(
    scope: Scope, query: Float[Array, "*b t h d"], *, size: tuple[int, int], hidden: int = 512
) -> Float[Array, "h t t"]:
    """Attention bias: an MLP of the query's offset from the key, on a logarithmic scale.

    Paths: `mlp/fc1` (2 to `hidden`), `mlp/fc2` (`hidden` to heads). No leaf depends on `size`. Dropout of the hidden
    activations has a rate of 0.125, as in timm. After Liu et al., "Swin Transformer V2" (2022), section 3.3, which
    also normalises the offsets and bounds the bias.
    """
    rows, columns = (np.arange(1 - n, n, dtype=np.float64) for n in size)
    offsets = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    x = jnp.asarray(np.sign(offsets) * np.log1p(np.abs(offsets)), query.dtype)
    x = dropout(scope["mlp"]["drop1"], relu(linear(scope["mlp"]["fc1"], x, hidden)), 0.125)
    return ops.gather_bias(linear(scope["mlp"]["fc2"], x, query.shape[-2]), ops.relative_position_index(size))


def attend_in_parts(
    scope: Scope,
    query: Float[Array, "p t h d"],
    key: Float[Array, "p t h d"],
    value: Float[Array, "p t h d"],
    count: int,
    position_bias: Callable,
    size: tuple[int, int],
) -> Float[Array, "b n t c"]:
    """Attention within each of the `count` parts of `size` tokens of every image, with a bias (path `rel_pos`)."""
    bias = position_bias(scope["rel_pos"], query, size=size)
    if scope.captures("weights"):
        weights = ops.attention_weights(query, key, bias)
        scope.capture("weights", ops.split_axis(weights, 0, count))
    y = ops.dot_product_attention(query, key, value, bias)
    return ops.split_axis(ops.merge_axes(y, 2), 0, count)


def _attend(scope, x, features, num_heads, size, dim, position_bias, heads_first, dense):
    """Self-attention among the `t` tokens in each of `n` blocks or grids of `x` (b, n, t, c)."""
    features, dim = features or x.shape[-1], dim or x.shape[-1]
    check_heads(scope, dim, num_heads)
    qkv, width = dense(scope["qkv"], x, 3 * dim), dim // num_heads
    # Merge b and n: with one more axis, XLA for CPUs sums the bias' gradient ten times slower.
    qkv = ops.merge_axes(qkv, 0)
    if heads_first:
        query, key, value = jnp.split(qkv.reshape(*qkv.shape[:2], num_heads, 3 * width), 3, axis=-1)
    else:
        query, key, value = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, num_heads, width), 2, 0)
    y = attend_in_parts(scope, query, key, value, x.shape[1], position_bias, size)
    return dense(scope["proj"], y, features)


@kernel
def block_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    num_heads: int,
    size: int | ops.Sizes = 7,
    dim: int | None = None,
    position_bias: Callable = relative_position_table,
    heads_first: bool = False,
    dense: Callable = linear,
) -> Float[Array, "b h w f"]:
    """Multi-head self-attention within each block of `size` adjacent tokens, with a relative position bias.

    Paths: `qkv`, `rel_pos`, `proj`. Captured on request: `weights` (b, blocks, heads, t, t), the softmax.
    Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022), section 3.2.

    Args:
        features: Output width, by default the input's.
        size: Height and width of a block in tokens; they must divide those of the map.
        dim: Width of the queries, and of the keys and the values, for all heads together; by default the input's.
        position_bias: A kernel, `relative_position_table`, `relative_position_map` or `relative_position_mlp`.
        heads_first: The channels of `qkv` are (head, query/key/value, width), not (query/key/value, head, width).
        dense: The kernel of `qkv` and `proj`: `linear`, or a 1x1 `conv`.
    """
    size = (size, size) if isinstance(size, int) else size
    require_fixed(scope, "rel_pos", (*size, x.shape[1], x.shape[2]))
    parts = ops.window_partition(x, size)
    y = _attend(scope, parts, features, num_heads, size, dim, position_bias, heads_first, dense)
    return ops.window_reverse(y, size, (x.shape[1], x.shape[2]))


@kernel
def grid_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    num_heads: int,
    size: int | ops.Sizes = 7,
    dim: int | None = None,
    position_bias: Callable = relative_position_table,
    heads_first: bool = False,
    dense: Callable = linear,
) -> Float[Array, "b h w f"]:
    """Multi-head self-attention within each grid of `size` tokens, which are evenly spaced over the whole map.

    Options and paths are those of `block_attention`; `size` is a grid's height and width in tokens.
    Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022), section 3.2.
    """
    size = (size, size) if isinstance(size, int) else size
    require_fixed(scope, "rel_pos", (*size, x.shape[1], x.shape[2]))
    parts = ops.grid_partition(x, size)
    y = _attend(scope, parts, features, num_heads, size, dim, position_bias, heads_first, dense)
    return ops.grid_reverse(y, size, (x.shape[1], x.shape[2]))
