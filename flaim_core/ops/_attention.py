"""Scaled dot-product attention on arrays.

Queries, keys and values are transposed from (b, tokens, heads, d) to (b, heads, tokens, d) for batched matrix products.
The softmax's division by its sum (b, heads, q, 1) comes after the product with the values, because that product
(b, heads, q, v) is smaller than the softmax (b, heads, q, k). `benchmarks/ops/attention.py` compares this on a CPU with
other orders.

On a CUDA GPU, cuDNN's fused attention is used within its limits: half precision, no bias, heads up to 128 wide.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.lowering import for_gpu, is_abstract_evaluation
from flaim_core.ops._fusion import fusion_boundary
from flaim_core.ops._precision import accumulation_dtype

_CUDNN_MAX_WIDTH = 128


def dot_product_attention(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    value: Float[Array, "*b k h v"],
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*b q h v"]:
    """`softmax(scale * query @ key.T + bias) @ value` for each head `h`; the softmax in float32 or wider.

    `bias` broadcasts to `(*b, h, q, k)`; `scale` is `d ** -0.5` unless given.
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1.
    """
    if is_abstract_evaluation():
        return jnp.zeros((*query.shape[:-1], value.shape[-1]), value.dtype)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    products = functools.partial(_products, bias=bias, scale=scale)
    if bias is None and for_gpu() and _fits_cudnn(query, key, value):
        fused = functools.partial(_cudnn, scale=scale)
        return lax.platform_dependent(query, key, value, cuda=fused, default=products)
    return products(query, key, value)


def attention_weights(
    query: Float[Array, "*b q h d"],
    key: Float[Array, "*b k h d"],
    bias: Float[Array, "..."] | None = None,
    scale: float | None = None,
) -> Float[Array, "*b h q k"]:
    """The softmax in `dot_product_attention`, in float32 or wider."""
    if is_abstract_evaluation():
        shape = (*query.shape[:-3], query.shape[-2], query.shape[-3], key.shape[-3])
        return jnp.zeros(shape, accumulation_dtype(query))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    weights, total = _exponentials(query, key, bias, scale)
    return weights / total


def _fits_cudnn(query: Array, key: Array, value: Array) -> bool:
    """Whether cuDNN supports these: half precision, equal head widths, a multiple of 8 and at most 128."""
    widths = {x.shape[-1] for x in (query, key, value)}
    half = {x.dtype for x in (query, key, value)} in ({jnp.dtype("bfloat16")}, {jnp.dtype("float16")})
    return half and len(widths) == 1 and max(widths) % 8 == 0 and max(widths) <= _CUDNN_MAX_WIDTH


def _cudnn(query: Array, key: Array, value: Array, scale: float) -> Array:
    batch = query.shape[:-3]
    flat = (x.reshape(math.prod(batch), *x.shape[-3:]) for x in (query, key, value))
    y = jax.nn.dot_product_attention(*flat, scale=scale, implementation="cudnn")
    return y.reshape(*batch, *y.shape[1:])


def _products(query: Array, key: Array, value: Array, bias: Array | None, scale: float) -> Array:
    weights, total = _exponentials(query, key, bias, scale)
    value, dtype = jnp.swapaxes(value, -3, -2), weights.dtype
    mixed = jnp.einsum("...qk,...kv->...qv", weights.astype(value.dtype), value, preferred_element_type=dtype)
    return jnp.swapaxes((mixed / total).astype(value.dtype), -3, -2)


def _exponentials(query: Array, key: Array, bias: Array | None, scale: float) -> tuple[Array, Array]:
    """The softmax's exponentials (*b, h, q, k) and their sum (*b, h, q, 1)."""
    query, key = (jnp.swapaxes(x, -3, -2) for x in (query * scale, key))
    dtype = accumulation_dtype(query)
    logits = jnp.einsum("...qd,...kd->...qk", query, key, preferred_element_type=dtype)
    if bias is not None:
        bias = bias.astype(dtype)
        logits = logits + jnp.expand_dims(bias, tuple(range(logits.ndim - bias.ndim)))
    # The softmax does not depend on the maximum that is subtracted, so the maximum needs no gradient.
    weights = jnp.exp(logits - lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    return weights, fusion_boundary(jnp.sum(weights, axis=-1, keepdims=True))
