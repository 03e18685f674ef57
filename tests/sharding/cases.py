"""Small models in float64 on one device and on four, and how their results are compared."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flaim import models
from tests.small import images, randomised, small

# Programs of all families are traced, those of `UNLIKE` are compiled and run, and of these two everything is.
THOROUGH = ("resnet", "vit")
BATCH, DEVICES = 8, 4
REPLICATED = P()


def run(model: models.Model, axis: str | None = None) -> Callable:
    """Inference, and loss, statistics and gradients of training, as one function of variables, images and targets.

    Under `shard_map`, `axis` is its axis.
    """

    def both(variables, x, targets):
        def loss(params):
            output = model.apply(
                {**variables, "params": params}, x, training=True, rng=jax.random.key(2), axis_name=axis
            )
            value = jnp.mean((output.value - targets) ** 2)
            return (value if axis is None else jax.lax.pmean(value, axis)), output.batch_stats

        logits = model.apply(variables, x).value
        return logits, jax.value_and_grad(loss, has_aux=True)(variables["params"])

    return both


@functools.cache
def case(family: str, **options: Any) -> tuple:
    """The small model, its variables, images and targets, and what one device makes of them.

    In float64: a network that normalises by eight images' statistics amplifies float32's rounding beyond any tolerance
    that would show a fault.
    """
    model = small(family, **options)
    variables, x = randomised(model), images(model, BATCH)
    targets = np.random.default_rng(2).standard_normal((BATCH, model.n_classes))
    inputs = jax.tree.map(lambda array: np.asarray(array, np.float64), (variables, x, targets))
    return model, inputs, jax.tree.map(np.asarray, jax.jit(run(model))(*inputs))


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Each of the outputs, trees of arrays, is equal to `tolerance` of its largest number."""
    (logits, ((loss, stats), gradients)), (logits2, ((loss2, stats2), gradients2)) = found, expected
    for name, one, other in (
        ("logits", logits, logits2),
        ("loss", loss, loss2),
        ("statistics", stats, stats2),
        ("gradients", gradients, gradients2),
    ):
        largest = max((float(np.abs(leaf).max()) for leaf in jax.tree.leaves(other)), default=0.0)
        for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other)):
            error = float(np.abs(np.asarray(a) - b).max()) / largest
            assert error < tolerance, f"{name}{jax.tree_util.keystr(path)} is {error:.1e} of the largest number off"


def put(inputs: tuple, mesh: jax.sharding.Mesh, batch: P, leaf: Callable[[np.ndarray], P] = lambda leaf: P()) -> tuple:
    """Variables, images and targets on the mesh's devices."""
    variables, *others = inputs
    variables = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, leaf(x))), variables)
    return variables, *(jax.device_put(x, NamedSharding(mesh, batch)) for x in others)


def first_axis(sharding: Any) -> Any:
    """The mesh axis, or axes, that the batch is sharded over."""
    return sharding.spec[0] if len(sharding.spec) else None


def mapped(function: Callable, **options: Any) -> Callable:
    """A function as `run` gives it, under `jax.shard_map` over "data", parameters replicated."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    specs = dict(in_specs=(P(), P("data"), P("data")), out_specs=(P("data"), P()))
    return jax.jit(jax.shard_map(function, mesh=mesh, **specs, **options))
