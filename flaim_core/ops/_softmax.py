"""The softmax of attention whose weights are needed as such."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._fusion import fusion_boundary


def softmax(logits: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """The softmax along the last axis, in the dtype of `logits`."""
    # It does not depend on the maximum that is subtracted, so the maximum needs no gradient.
    weights = jnp.exp(logits - lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True)))
    return weights / fusion_boundary(jnp.sum(weights, axis=-1, keepdims=True))
