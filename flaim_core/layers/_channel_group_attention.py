import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.scope import Scope, kernel


@kernel
def channel_group_attention(
    scope: Scope, x: Float[Array, "*b n c"], *, num_heads: int, qkv_bias: bool = True
) -> Float[Array, "*b n c"]:
    """Attention among the channels of each of `num_heads` groups; a channel's features are its values at all tokens.

    As DaViT was trained: the softmax is of products of keys and values, divided by the square root of a group's width,
    and weights the queries. Paths: `qkv`, `proj`. Captured on request: `weights` (*b, num_heads, d, d), the softmax.
    Ding et al., "DaViT: Dual Attention Vision Transformers" (2022), section 3.2.
    """
    query, key, value = qkv_projection(scope, x, num_heads=num_heads, bias=qkv_bias)
    return _attend(scope, key, value, query, jnp.asarray(query.shape[-1], ops.accumulation_dtype(x)))


@kernel
def token_scaled_channel_attention(
    scope: Scope, x: Float[Array, "*b n c"], *, num_heads: int, qkv_bias: bool = True
) -> Float[Array, "*b n c"]:
    """`channel_group_attention` of queries, keys and values in their usual roles, scaled by the number of tokens.

    The products are divided by its square root, so that the logits do not grow with the image. Paths: `qkv`, `proj`.
    Captured on request: `weights` (*b, num_heads, d, d), the softmax.
    Xiao et al., "Florence-2" (2023); the reference is its image encoder.
    """
    query, key, value = qkv_projection(scope, x, num_heads=num_heads, bias=qkv_bias)
    return _attend(scope, query, key, value, jnp.asarray(x.shape[-2], ops.accumulation_dtype(x)))


def _attend(scope: Scope, query: Array, key: Array, value: Array, size: Array) -> Array:
    """`softmax(query.T @ key / sqrt(size)) @ value.T` for each head, and the linear layer `proj`."""
    logits = jnp.einsum("...nhc,...nhd->...hcd", query, key, preferred_element_type=size.dtype)
    weights = jax.nn.softmax(logits / jnp.sqrt(size), axis=-1)
    if scope.captures("weights"):
        scope.capture("weights", weights)
    y = jnp.einsum("...hcd,...nhd->...nhc", weights.astype(value.dtype), value)
    return heads_projection(scope, y)
