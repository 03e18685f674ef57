"""A user's program on the framework-free models and the kernels."""

import jax
import jax.numpy as jnp

import flaim
import flaim_core as core
from flaim.data import Preprocess
from flaim.models import Model, create, fuse
from flaim.weights import load, resolve


@core.kernel
def block(scope: core.Scope, x: jax.Array, *, num_heads: int = 4) -> jax.Array:
    y = core.attention(scope["attn"], core.layer_norm(scope["norm"], x), num_heads=num_heads)
    return x + core.drop_path(scope["drop_path"], y, 0.1)


tokens = jnp.zeros((2, 16, 64))
variables = core.init(block, jax.random.key(0), tokens)
alone: jax.Array = block(variables["params"], tokens, num_heads=8)
output = core.apply(block, variables, tokens, training=True, rng=jax.random.key(1))
value: jax.Array = output.value

model: Model = create("resnet18", n_classes=10)
fused, folded = fuse(model, model.init(jax.random.key(0)))
logits = fused.apply(folded, jnp.zeros((1, 224, 224, 3))).value
checkpoint = load("folder")
images = Preprocess.from_row(resolve("resnet50.a1_in1k").preprocessing)("cat.png")
best = max(flaim.list_models("resnet", details=True), key=lambda found: found.top1 or 0.0)
name: str = best.model
