"""A user's program in dm-haiku."""

import jax
import jax.numpy as jnp

from flaim.adapters.haiku import get_model, to_variables

transformed, params, state, norm_stats = get_model("resnet18", pretrained=False)
logits, state = transformed.apply(params, state, jax.random.key(0), jnp.zeros((2, 224, 224, 3)), is_training=True)
canonical: dict = to_variables(params, state)
