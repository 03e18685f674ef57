import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.scope import Scope, kernel

_KERNEL_INIT = initializers.truncated_normal(0.02)


@kernel
def _mix_heads(scope: Scope, maps: Float[Array, "b h q k"]) -> Float[Array, "b h q k"]:
    """Each head's map becomes an affine combination of all heads' maps. Leaves: `kernel` (in, out), `bias`.

    A product of a small matrix with each image's maps, which stay where they are.
    """
    heads = maps.shape[1]
    # In the dtype of the softmax.
    weight = scope.param("kernel", (heads, heads), _KERNEL_INIT, layout="io", dtype=maps.dtype)
    bias = scope.param("bias", (heads,), initializers.zeros, dtype=maps.dtype)
    weights = ops.repeat_over_batch(weight.T[None], maps)
    mixed = jnp.einsum("bgh,bhn->bgn", weights, ops.merge_axes(maps, 2))
    return mixed.reshape(maps.shape) + bias[None, :, None, None]


@kernel
def talking_heads_attention(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b n c"]:
    """Multi-head self-attention that mixes the heads' logits before the softmax, and their weights after it.

    Paths: `qkv`, `proj`; `proj_l` and `proj_w`, which mix the logits and the weights. Captured on request: `weights`
    (b, heads, n, n), the softmax before it is mixed. Shazeer et al., "Talking-Heads Attention" (2020).
    """
    qkv = qkv_projection(scope, x, num_heads=num_heads, bias=qkv_bias)
    query, key, value = (jnp.swapaxes(y, 1, 2) for y in qkv)
    query, dtype = query * query.shape[-1] ** -0.5, ops.accumulation_dtype(x)
    logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=dtype)
    weights = ops.softmax(_mix_heads(scope["proj_l"], logits))
    if scope.captures("weights"):
        scope.capture("weights", weights)
    mixed = _mix_heads(scope["proj_w"], weights).astype(value.dtype)
    y = jnp.einsum("bhqk,bhkd->bhqd", mixed, value, preferred_element_type=dtype).astype(value.dtype)
    return heads_projection(scope, jnp.swapaxes(y, 1, 2), bias=proj_bias, drop_rate=drop_rate)
