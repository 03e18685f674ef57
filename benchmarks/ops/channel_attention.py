"""Which order is fastest for attention among channels on this CPU: where is the axis of heads, and what is normalised?

`python -m benchmarks.ops.channel_attention`
"""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.ops._turns import array, milliseconds, show
from flaim_core import ops

# batch, tokens, heads, width of a head
CASES = {"XCiT-N, patches of 16": (8, 196, 4, 32), "XCiT-S, patches of 16": (8, 196, 8, 48)}
CASES["XCiT-S, patches of 8"] = (4, 784, 8, 48)


def inverse_norm(x, axis):
    return lax.rsqrt(jnp.sum(x * x, axis, keepdims=True))


def tokens_last(query, key, value, temperature):
    """As the reference does it: tokens are the last axis; queries and keys are normalised before their product."""
    query, key, value = (x.transpose(0, 2, 3, 1) for x in (query, key, value))
    query, key = query * inverse_norm(query, 3), key * inverse_norm(key, 3)
    weights = jax.nn.softmax(query @ key.swapaxes(2, 3) * temperature[None, :, None, None])
    return (weights @ value).transpose(0, 3, 1, 2)


def heads_in_place(query, key, value, temperature):
    """With the axis of heads where it is, between tokens and width; the products are normalised."""
    logits = jnp.einsum("bnhi,bnhj->bhij", query, key) * temperature[None, :, None, None]
    logits = logits * inverse_norm(query, 1)[:, 0, :, :, None] * inverse_norm(key, 1)[:, 0, :, None]
    return jnp.einsum("bhij,bnhj->bnhi", jax.nn.softmax(logits), value)


if __name__ == "__main__":
    ways = {"tokens last": tokens_last, "in place": heads_in_place, "flaim": ops.channel_attention}
    gradients = {
        name: jax.grad(lambda *qkv, way=way: jnp.cos(way(*qkv)).sum(), (0, 1, 2, 3)) for name, way in ways.items()
    }
    tensors = {
        case: [*(array(*shape, seed=i) for i in range(3)), array(shape[2], seed=3)] for case, shape in CASES.items()
    }
    show("Channel attention", {case: milliseconds(ways, *args) for case, args in tensors.items()})
    show("Channel attention, gradient", {case: milliseconds(gradients, *args) for case, args in tensors.items()})
