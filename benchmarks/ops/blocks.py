"""How much time and memory do separately compiled blocks, remat and microbatches save on this CPU?

For each model: the forward pass and the training step of 8 images, with flaim's lowerings and with public JAX
operations only (`flaim_core.lowering("portable")`), and the memory of their intermediate arrays.

    python -m benchmarks.ops.blocks resnet50 convnext_tiny vit_small_patch16_224
"""

import sys

import jax
import jax.numpy as jnp

import flaim_core as core
from benchmarks.ops._turns import array, milliseconds, show
from flaim import models
from flaim_core import microbatch


def _forward(model, mode):
    def run(variables, x):
        with core.lowering(mode):
            return model.apply(variables, x).value

    return run


def _gradient(model, mode):
    def loss(params, stats, x):
        with core.lowering(mode):
            output = model.apply({"params": params, "batch_stats": stats}, x, training=True, rng=jax.random.key(0))
            return jnp.mean(output.value**2)

    return lambda variables, x: jax.grad(loss)(variables["params"], variables.get("batch_stats", {}), x)


def _whole(run):
    """`run`, traced without microbatches."""

    def whole(*args):
        usual, microbatch._PIXELS_PER_CORE = microbatch._PIXELS_PER_CORE, 10**9
        try:
            return run(*args)
        finally:
            microbatch._PIXELS_PER_CORE = usual

    return whole


def _megabytes(way, *args) -> float:
    return jax.jit(way).lower(*args).compile().memory_analysis().temp_size_in_bytes / 1e6


if __name__ == "__main__":
    for name in sys.argv[1:] or ["resnet50", "vit_small_patch16_224"]:
        model = models.create(name)
        variables, x = model.init(jax.random.key(0)), array(*model.image(8).shape)
        forward = {mode: _forward(model, mode) for mode in ("portable", "auto")}
        forward["auto, whole batch"] = _whole(forward["auto"])
        training = {mode: _gradient(model, mode) for mode in ("portable", "auto")}
        rows = {"forward": milliseconds(forward, variables, x, seconds=5)}
        rows["gradient"] = milliseconds(training, variables, x, seconds=10)
        show(name, rows)
        for task, ways in {"forward": forward, "gradient": training}.items():
            print(task, *(f"{mode}: {_megabytes(way, variables, x):.0f} MB" for mode, way in ways.items()), sep="; ")
