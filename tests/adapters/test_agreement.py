"""Every family in every framework: the same logits, statistics, masks and gradients, and the same variables back."""

import inspect
from itertools import zip_longest

import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flaim import models
from flaim.adapters import eqx, haiku, linen
from flaim.adapters import nnx as nnx_adapter
from tests.small import UNLIKE, randomised, small
from tests.small import images as images_for


def run_free(model, variables, x, key):
    """Value and running statistics; in training where there is a key."""
    output = model.apply(variables, x, training=key is not None, rng=key)
    return output.value, output.batch_stats


def run_linen(model, variables, x, key):
    module, variables = linen.wrap(model, variables)
    rngs = {} if key is None else {"dropout": key}
    value, updates = module.apply(variables, x, key is not None, mutable=["batch_stats"], rngs=rngs)
    return value, updates.get("batch_stats", {})


def run_nnx(model, variables, x, key):
    module = nnx_adapter.wrap(model, variables)
    value = module(x, deterministic=key is None, rngs=key)
    return value, nnx_adapter.to_variables(module).get("batch_stats", {})


def run_eqx(model, variables, x, key):
    module, state = eqx.wrap(model, variables)
    value, state = equinox.nn.inference_mode(module, key is None)(x, state, key=key)
    return value, eqx.to_variables(module, state).get("batch_stats", {})


def run_haiku(model, variables, x, key):
    transformed, params, state = haiku.wrap(model, variables)
    value, state = transformed.apply(params, state, key, x, is_training=key is not None)
    return value, haiku.to_variables(params, state).get("batch_stats", {})


RUNS = {"linen": run_linen, "nnx": run_nnx, "eqx": run_eqx, "haiku": run_haiku}


def gradients_linen(model, variables, x, key):
    """Gradients of the mean square in training, by the framework's own means, as a canonical tree."""
    module, variables = linen.wrap(model, variables)

    def loss(params):
        given, rngs = {**variables, "params": params}, {"dropout": key}
        return jnp.mean(module.apply(given, x, training=True, mutable=["batch_stats"], rngs=rngs)[0] ** 2)

    return jax.grad(loss)(variables["params"])


def gradients_nnx(model, variables, x, key):
    module = nnx_adapter.wrap(model, variables)
    module.train()
    return nnx.to_pure_dict(nnx.grad(lambda module: jnp.mean(module(x, rngs=key) ** 2))(module))


def gradients_eqx(model, variables, x, key):
    module, state = eqx.wrap(model, variables)

    def loss(module):
        value, new = module(x, state, key=key)
        return jnp.mean(value**2), new

    gradients, state = equinox.filter_grad(loss, has_aux=True)(equinox.nn.inference_mode(module, False))
    return eqx.to_variables(gradients, state)["params"]


def gradients_haiku(model, variables, x, key):
    transformed, params, state = haiku.wrap(model, variables)

    def loss(params):
        return jnp.mean(transformed.apply(params, state, key, x, is_training=True)[0] ** 2)

    return haiku.to_variables(jax.grad(loss)(params), {})["params"]


GRADIENTS = {"linen": gradients_linen, "nnx": gradients_nnx, "eqx": gradients_eqx, "haiku": gradients_haiku}


def results(run, model, variables, x, key):
    """Logits, what comes out in training, running statistics, gradients through the adapter."""

    def loss(params):
        value, stats = run(model, {**variables, "params": params}, x, key)
        return jnp.mean(value**2), (value, stats)

    gradients, (value, stats) = jax.grad(loss, has_aux=True)(variables["params"])
    return run(model, variables, x, None)[0], value, stats, gradients


def dropping(family, **overrides):
    """A small model that drops what its family can, its variables, images and a key."""
    rates = {"drop_path_rate": 0.3, "drop_rate": 0.2}
    options = inspect.signature(models.family(family).fn).parameters
    model = small(family, **{name: rate for name, rate in rates.items() if name in options}, **overrides)
    return model, randomised(model), images_for(model), jax.random.key(3)


@pytest.mark.parametrize("family", models.families())
def test_the_same_program_in_every_framework(family):
    assert_one_program(results if family in UNLIKE else outputs, *dropping(family))


@pytest.mark.parametrize("fields", [{"remat": True}, {"scan": True}, {"dtype": "bfloat16"}], ids=str)
def test_the_models_own_options_reach_every_framework(fields, model, variables, images):
    assert_one_program(results, model.replace(**fields), variables, images, jax.random.key(3))


def outputs(run, model, variables, x, key):
    """What comes out in training, with running statistics."""
    return run(model, variables, x, key)


def assert_one_program(read, model, *inputs):
    """`read` of canonical variables is one program in all frameworks: equal programs give equal numbers."""

    def program(run):
        lowered = jax.jit(lambda variables, x, key: read(run, model, variables, x, key)).lower(*inputs)
        return lowered.as_text().splitlines()

    expected = program(run_free)
    for framework, run in RUNS.items():
        differing = [lines for lines in zip_longest(program(run), expected) if lines[0] != lines[1]]
        assert not differing, f"{framework}: {differing[0]}"


@pytest.mark.parametrize(("family", "overrides"), [("resnet", {}), ("vit", {"depth": 2})])
def test_the_same_numbers_in_every_framework(family, overrides):
    model, variables, x, key = dropping(family, **overrides)

    def run(variables, x, key):
        found = {
            framework: (*results(run, model, variables, x, key), GRADIENTS[framework](model, variables, x, key))
            for framework, run in RUNS.items()
        }
        return results(run_free, model, variables, x, key), found

    # One program, in which equal parts are compiled once, and fast.
    compiled = jax.jit(run).lower(variables, x, key).compile({"xla_backend_optimization_level": 0})
    (*expected, gradients), found = compiled(variables, x, key)
    assert not np.array_equal(expected[0], expected[1])
    for framework, values in found.items():
        for value, reference in zip(values, (*expected, gradients, gradients)):
            chex.assert_trees_all_equal(value, reference, custom_message=framework)


@pytest.mark.parametrize("family", models.families())
def test_the_same_variables_back(family):
    model = small(family)
    variables = randomised(model)
    back = {
        "linen": linen.to_variables(linen.wrap(model, variables)[1]),
        "nnx": nnx_adapter.to_variables(nnx_adapter.wrap(model, variables)),
        "eqx": eqx.to_variables(*eqx.wrap(model, variables)),
        "haiku": haiku.to_variables(*haiku.wrap(model, variables)[1:]),
    }
    for framework, found in back.items():
        chex.assert_trees_all_equal(found, variables, custom_message=framework)
        assert all(type(node) is dict for node in (found, found["params"])), framework


@pytest.mark.parametrize("family", models.families())
def test_the_same_random_initialisation(family):
    model, key = small(family), jax.random.key(4)
    expected, x = model.init(key), images_for(model)
    chex.assert_trees_all_equal(linen.ImageModel(model).init(key, x), expected)
    chex.assert_trees_all_equal(haiku.to_variables(*haiku.wrap(model, expected)[0].init(key, x)), expected)


def test_the_classifier_of_every_family_is_an_nnx_linear():
    for family in models.families():
        model = small(family)
        module = nnx_adapter.wrap(model, model.init(jax.random.key(0)))
        for name in model.classifier.split("/"):
            module = getattr(module, name)
        assert type(module) is nnx.Linear, family
