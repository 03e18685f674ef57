"""Which order is fastest for attention on this CPU: where is the axis of heads, and when is the softmax divided?

`python -m benchmarks.ops.attention`
"""

import jax
import jax.numpy as jnp

from benchmarks.ops._turns import array, milliseconds, show
from flaim_core import ops

# batch, tokens, heads, width of a head
CASES = {"ViT-B/16": (8, 197, 12, 64), "ViT-S/16": (8, 197, 6, 64), "Swin-T, first stage": (512, 49, 3, 32)}


def heads_in_place(query, key, value):
    """With the axis of heads where it is, between tokens and width."""
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def heads_in_front(query, key, value):
    """As batched matrix products; the softmax is divided by its sum before the second one."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    weights = jax.nn.softmax(query @ key.swapaxes(2, 3) * query.shape[-1] ** -0.5)
    return (weights @ value).swapaxes(1, 2)


if __name__ == "__main__":
    ways = {"in place": heads_in_place, "in front": heads_in_front, "flaim": ops.dot_product_attention}
    gradients = {
        name: jax.grad(lambda *qkv, way=way: jnp.cos(way(*qkv)).sum(), (0, 1, 2)) for name, way in ways.items()
    }
    tensors = {case: [array(*shape, seed=i) for i in range(3)] for case, shape in CASES.items()}
    show("Attention", {case: milliseconds(ways, *qkv) for case, qkv in tensors.items()})
    show("Attention, gradient", {case: milliseconds(gradients, *qkv) for case, qkv in tensors.items()})
