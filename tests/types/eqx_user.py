"""A user's program in Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp

from flaim.adapters.eqx import get_model, to_variables

model, state, norm_stats = get_model("resnet18", pretrained=False, axis_name="batch")
model = eqx.nn.inference_mode(model, False)
images = jnp.zeros((2, 224, 224, 3))
logits, state = model(images, state, key=jax.random.key(0))
largest: jax.Array = jnp.max(logits)
weights = eqx.filter(model, eqx.is_inexact_array)
canonical: dict = to_variables(model, state)
