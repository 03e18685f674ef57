"""Attention among the channels of each head: its weights are cross-covariances of channels, taken over all tokens.

Queries, keys and values are transposed from (b, tokens, heads, d) to (b, heads, tokens, d) for batched matrix products.
The weights (b, heads, d, d) are small, so the queries' and keys' norms divide the products, not the queries and keys.
`benchmarks/ops/channel_attention.py` compares this on a CPU with other orders.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.lowering import is_abstract_evaluation
from flaim_core.ops._fusion import fusion_boundary
from flaim_core.ops._precision import accumulation_dtype, at_least_float32
from flaim_core.ops._softmax import softmax

_SMALLEST_SQUARE = 1e-24  # the reference divides by at least 1e-12


def channel_attention(
    query: Float[Array, "*b n h d"],
    key: Float[Array, "*b n h d"],
    value: Float[Array, "*b n h d"],
    temperature: Float[Array, " h"],
) -> Float[Array, "*b n h d"]:
    """`softmax(temperature * query.T @ key) @ value.T` for each head `h`, where channels have norm 1 over the tokens.

    The softmax is in float32 or wider.
    El-Nouby et al., "XCiT: Cross-Covariance Image Transformers" (2021), section 3.2.
    """
    if is_abstract_evaluation():
        return jnp.zeros(value.shape, value.dtype)
    weights, value = channel_attention_weights(query, key, temperature), jnp.swapaxes(value, -3, -2)
    mixed = jnp.einsum("...ij,...nj->...ni", weights.astype(value.dtype), value, preferred_element_type=weights.dtype)
    return jnp.swapaxes(mixed.astype(value.dtype), -3, -2)


def channel_attention_weights(
    query: Float[Array, "*b n h d"], key: Float[Array, "*b n h d"], temperature: Float[Array, " h"]
) -> Float[Array, "*b h d d"]:
    """The softmax in `channel_attention`, in float32 or wider."""
    dtype = accumulation_dtype(query)
    if is_abstract_evaluation():
        return jnp.zeros((*query.shape[:-3], *query.shape[-2:], query.shape[-1]), dtype)
    query, key = (jnp.swapaxes(x, -3, -2) for x in (query, key))
    products = jnp.einsum("...ni,...nj->...ij", query, key, preferred_element_type=dtype)
    temperature = jnp.expand_dims(temperature.astype(dtype), (*range(products.ndim - 3), -2, -1))
    logits = products * (jnp.expand_dims(_inverse_norm(query), -1) * temperature)
    logits = logits * jnp.expand_dims(_inverse_norm(key), -2)
    return softmax(logits)


def _inverse_norm(x: Float[Array, "*b h n d"]) -> Float[Array, "*b h d"]:
    """One over the norm of each channel. A channel of zeros has a gradient without NaNs."""
    squares = jnp.sum(jnp.square(at_least_float32(x)), axis=-2)
    return fusion_boundary(lax.rsqrt(jnp.maximum(squares, jnp.asarray(_SMALLEST_SQUARE, squares.dtype))))
