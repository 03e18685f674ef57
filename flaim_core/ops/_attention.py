"""Scaled dot-product attention on arrays."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dot_product_attention(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h v"],
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*b q h v"]:
    """Softmax of query-key products times values; the softmax in float32.

    `bias` is added to the scaled products and broadcasts to `(*b, h, q, k)`; `scale` is `d ** -0.5` unless given.
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights = jnp.einsum("...qhd,...khd->...hqk", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        weights = weights + bias.astype(jnp.float32)
    weights = jax.nn.softmax(weights, axis=-1).astype(value.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)
