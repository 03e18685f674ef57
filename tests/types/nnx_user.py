"""A user's program in Flax NNX."""

import jax
import optax
from flax import nnx

from flaim.adapters.nnx import from_pretrained, get_model, layers, save_pretrained, to_variables

model, norm_stats = get_model("vit_small_patch16_224", pretrained=False, rngs=nnx.Rngs(0))
model.train()
optimizer = nnx.Optimizer(model, optax.adamw(1e-4), wrt=nnx.Param)
mean: tuple[float, ...] = norm_stats["mean"]


@nnx.jit
def step(images: jax.Array, labels: jax.Array) -> jax.Array:
    def loss(model: nnx.Module) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


save_pretrained("folder", model)
again, _ = from_pretrained("folder")
canonical: dict = to_variables(again)
block = layers.MBConv(8, features=64, rngs=nnx.Rngs(0))
