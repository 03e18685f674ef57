"""A training step of each adapter, batch norm and dropout included, under `jax.shard_map`, parameters replicated."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.sharding.cases import DEVICES, REPLICATED, assert_same, case


def data_parallel(step: Callable, shard_map: Callable = jax.shard_map, replicated: Any = REPLICATED) -> Callable:
    """`step(model, images, targets)`, with the batch in parts; the model and what is returned are replicated."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    return shard_map(step, mesh=mesh, in_specs=(replicated, P("data"), P("data")), out_specs=REPLICATED)


def mean_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.lax.pmean(jnp.mean((logits - targets) ** 2), "data")


def assert_trained(family: str, loss: Any, stats: Any, gradients: Any) -> None:
    _, _, (logits, trained) = case(family)
    assert_same((logits, ((loss, stats), gradients)), (logits, trained))


def check_linen(family: str) -> None:
    from flaim.adapters import linen

    model, (variables, *batch), _ = case(family)
    module, variables = linen.wrap(model, variables)
    options = dict(training=True, axis_name="data", mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)})

    def step(variables, x, targets):
        def loss(params):
            logits, updates = module.apply({**variables, "params": params}, x, **options)
            return mean_loss(logits, targets), updates

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    (loss, updates), gradients = jax.jit(data_parallel(step))(variables, *batch)
    assert_trained(family, loss, updates.get("batch_stats", {}), gradients)


def check_nnx(family: str) -> None:
    from flax import nnx

    from flaim.adapters import nnx as adapter

    model, (variables, *batch), _ = case(family)
    module = adapter.wrap(model, jax.tree.map(jnp.asarray, variables))
    module.train()

    def step(module, x, targets):
        key = jax.random.key(2)
        return nnx.value_and_grad(lambda module: mean_loss(module(x, axis_name="data", rngs=key), targets))(module)

    loss, gradients = nnx.jit(data_parallel(step, nnx.shard_map, nnx.StateSharding({...: REPLICATED})))(module, *batch)
    stats = adapter.to_variables(module).get("batch_stats", {})
    assert_trained(family, loss, stats, nnx.to_pure_dict(gradients))


def check_eqx(family: str) -> None:
    import equinox as eqx

    from flaim.adapters import eqx as adapter

    model, (variables, *batch), _ = case(family)
    module, state = adapter.wrap(model, jax.tree.map(jnp.asarray, variables))
    params, static = eqx.partition(eqx.nn.inference_mode(module, False), eqx.is_inexact_array)

    def step(inputs, x, targets):
        params, state = inputs

        def loss(params):
            module, key = eqx.combine(params, static), jax.random.key(2)
            logits, new = module(x, state, key=key, axis_name="data")
            return mean_loss(logits, targets), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, state), gradients = jax.jit(data_parallel(step))((params, state), *batch)
    stats = adapter.to_variables(module, state).get("batch_stats", {})
    assert_trained(family, loss, stats, adapter.to_variables(eqx.combine(gradients, static), state)["params"])


def check_haiku(family: str) -> None:
    from flaim.adapters import haiku

    model, (variables, *batch), _ = case(family)
    transformed, params, state = haiku.wrap(model, variables)

    def step(params, x, targets):
        def loss(params):
            options = dict(is_training=True, axis_name="data")
            logits, new = transformed.apply(params, state, jax.random.key(2), x, **options)
            return mean_loss(logits, targets), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, state), gradients = jax.jit(data_parallel(step))(params, *batch)
    trained = haiku.to_variables(gradients, state)
    assert_trained(family, loss, trained.get("batch_stats", {}), trained["params"])
