"""A user's program in Flax Linen."""

import jax
import optax

from flaim.adapters.linen import get_model, layers, save_pretrained, to_variables
from flaim.data import Preprocess

model, variables, norm_stats = get_model("resnet18", pretrained=False, n_classes=10)
preprocess = Preprocess(input_size=224, mean=norm_stats.get("mean", (0.5,)), std=norm_stats.get("std", (0.5,)))
images = preprocess(["cat.png"])
labels = jax.numpy.zeros(1, int)


def loss(params: dict) -> jax.Array:
    logits, _ = model.apply(
        {**variables, "params": params},
        images,
        training=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


gradients = jax.grad(loss)(variables["params"])
save_pretrained("folder", model, variables, labels=[str(i) for i in range(10)])
canonical: dict = to_variables(variables)
block = layers.MBConv(features=64)
