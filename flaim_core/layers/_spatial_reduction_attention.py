from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.checks import check_heads
from flaim_core.layers._attention import attend
from flaim_core.layers._conv import conv
from flaim_core.layers._linear import linear
from flaim_core.layers._norm import layer_norm
from flaim_core.scope import Scope, kernel


@kernel
def spatial_reduction_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    reduce: Callable | None = None,
    qkv_bias: bool = True,
) -> Float[Array, "b h w c"]:
    """Multi-head attention from each position of a map to those of a smaller map, which is made of the first.

    Paths: `q`, `kv`, `proj`, and those of `reduce`, a kernel `(scope, x)` that makes the smaller map; None for the map
    itself. Captured on request: `weights` (b, heads, h * w, h2 * w2), the softmax.
    Wang et al., "Pyramid Vision Transformer" (2021), section 3.3.
    """
    dim = x.shape[-1]
    check_heads(scope, dim, num_heads)

    def heads(y: Array) -> Array:
        return ops.split_axis(ops.merge_axes(y, 1), 2, dim // num_heads)

    query = heads(linear(scope["q"], x, dim, bias=qkv_bias))
    source = x if reduce is None else reduce(scope, x)
    key, value = jnp.split(linear(scope["kv"], source, 2 * dim, bias=qkv_bias), 2, axis=-1)
    y = attend(scope, query, heads(key), heads(value))
    return linear(scope["proj"], ops.merge_axes(y, 2).reshape(x.shape), dim)


@kernel
def strided_reduction(
    scope: Scope, x: Float[Array, "b h w c"], *, ratio: int, norm: Callable = layer_norm
) -> Float[Array, "b h2 w2 c"]:
    """A map with sides `ratio` times shorter: a convolution of its patches (path `sr`), a norm (`norm`).

    A last, partial patch is left out. Raises SizeError for a map that is smaller than a patch.
    """
    y = conv(scope["sr"], x, x.shape[-1], kernel_size=ratio, stride=ratio, padding=0)
    return norm(scope["norm"], y)
