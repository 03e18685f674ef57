"""One small variant of each family, with random variables and images: what tests run for all families.

Compiling costs far more than tracing. So what crosses all families compiles each family's forward pass once or twice
and traces the rest; compiled and run is the rest for `UNLIKE`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flaim_core as core
from flaim import models, registry

# Families whose blocks are unlike each other.
UNLIKE = ("resnet", "vit", "efficientnet", "swin")
# By family: an architecture, and the options that make it small.
SMALL = {name: registry.family(name).tiny for name in registry.families()}


def small(family: str, **overrides) -> models.Model:
    name, options = SMALL[family]
    return models.create(name, **{"n_classes": 7, **options, **overrides})


def randomised(model: models.Model) -> dict:
    """Variables in which nothing is at its initial value, and activations keep their order of magnitude."""
    rng = np.random.default_rng(0)

    def value(path: str, leaf: core.Leaf) -> np.ndarray:
        normal, name = rng.standard_normal(leaf.shape), path.rpartition("/")[2]
        if name == "kernel":
            return normal * (2 / math.prod(leaf.shape[:-1])) ** 0.5  # as He et al. (2015)
        if name == "var":
            return 0.5 + rng.random(leaf.shape)
        if name in ("bias", "mean") or len(leaf.shape) != 1:  # tables and tokens among them
            return 0.2 * normal
        return 1 + 0.2 * normal  # scales of norms and of layers

    flat = core.flatten(model.spec())
    return core.unflatten({path: jnp.asarray(value(path, leaf), leaf.dtype) for path, leaf in flat.items()})


def images(model: models.Model, batch: int = 2) -> jax.Array:
    shape = model.image(batch).shape
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


class Case(NamedTuple):
    """A family's small model, its variables and three images, and its logits of them."""

    model: models.Model
    variables: dict
    x: jax.Array
    logits: jax.Array


@functools.cache
def case(family: str, **overrides) -> Case:
    """Compiled once in a process, whichever tests ask for it."""
    model = small(family, **overrides)
    variables, x = randomised(model), images(model, 3)
    return Case(model, variables, x, jax.jit(lambda v, x: model.apply(v, x).value)(variables, x))
