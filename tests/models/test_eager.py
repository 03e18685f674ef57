"""A call on arrays compiles itself: once for each model, mode and shape, in every framework."""

import gc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaim_core as core
from flaim import _eager, models
from flaim.adapters import eqx as flaim_eqx
from flaim.adapters import haiku as flaim_haiku
from flaim.adapters import linen as flaim_linen
from flaim.adapters import nnx as flaim_nnx
from tests.numerics import relative_error
from tests.small import images, randomised, small


@pytest.fixture
def traces(monkeypatch):
    """How often a model was traced."""
    found = []
    trace = _eager._trace

    def counted(*args):
        found.append(args)
        return trace(*args)

    monkeypatch.setattr(_eager, "_trace", counted)
    _eager._compiled.cache_clear()
    yield found
    _eager._compiled.cache_clear()


@pytest.fixture(scope="module")
def model():
    return small("resnet")


@pytest.fixture(scope="module")
def variables(model):
    return randomised(model)


def _calls(model, variables):
    """For each framework, a call of images in evaluation."""
    linen_model, linen_variables = flaim_linen.wrap(model, variables)
    nnx_model = flaim_nnx.wrap(model, variables)
    eqx_model, state = flaim_eqx.wrap(model, variables)
    haiku_model, params, haiku_state = flaim_haiku.wrap(model, variables)
    return {
        "free": lambda x: model.apply(variables, x).value,
        "linen": lambda x: linen_model.apply(linen_variables, x),
        "nnx": nnx_model,
        "eqx": lambda x: eqx_model(x, state)[0],
        "haiku": lambda x: haiku_model.apply(params, haiku_state, None, x)[0],
    }


def test_all_frameworks_share_one_program(model, variables, traces):
    x = images(model)
    values = [call(x) for call in _calls(model, variables).values() for _ in range(2)]
    assert len(traces) == 1
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])
    model.apply(variables, images(model, batch=3))
    model.apply(variables, x, training=True)
    assert len(traces) == 3


def test_training_steps_without_jit_trace_once(model, variables, traces):
    x = images(model)

    def loss(params, x):
        output = model.apply({**variables, "params": params}, x, training=True)
        return jnp.mean(output.value**2), output.batch_stats

    steps = [jax.value_and_grad(loss, has_aux=True)(variables["params"], x) for _ in range(2)]
    assert len(traces) == 1
    expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], x)
    for found, value in zip(jax.tree.leaves(steps[1]), jax.tree.leaves(expected)):
        assert relative_error(found, value) < 1e-4


def test_intermediates_keep_their_order_and_statistics_their_arrays(model, variables):
    x = images(model)
    output = model.apply(variables, x, capture="stage_*")
    assert list(output.intermediates) == [feature.name for feature in model.feature_info]
    same = jax.tree.map(lambda a, b: a is b, output.batch_stats, variables["batch_stats"])
    assert all(jax.tree.leaves(same))


def test_jit_can_be_disabled(model, variables, traces):
    with jax.disable_jit():
        assert model.apply(variables, images(model)).value.shape == (2, 7)
        model.apply(variables, images(model))
    assert len(traces) == 2


def test_modules_run_as_they_stand(model, variables):
    """A module that replaced a node may have effects, so nothing is compiled around it."""
    seen = []

    def head(x):
        seen.append(np.asarray(x).shape)  # an array, not a tracer
        return x

    for _ in range(2):
        model.apply(variables, images(model), modules={model.classifier: head})
    assert len(seen) == 2


def test_another_lowering_is_another_program(model, variables):
    x = images(model)
    expected = model.apply(variables, x).value
    with core.lowering("portable"):
        assert relative_error(model.apply(variables, x).value, expected) < 1e-5


def test_nothing_is_kept_alive(model):
    variables = randomised(model)
    leaf = next(iter(jax.tree.leaves(variables)))
    kept = weakref.ref(leaf)
    model.apply(variables, images(model))
    del variables, leaf
    gc.collect()
    assert kept() is None
    assert _eager._compiled.cache_info().maxsize is not None


def test_replaced_heads_still_train():
    model = small("vit")
    module = flaim_nnx.wrap(model, randomised(model))
    module.head = nnx.Sequential(nnx.Linear(module.head.in_features, 3, rngs=nnx.Rngs(0)))
    gradients = nnx.grad(lambda module: jnp.sum(module(images(model)) ** 2))(module)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients["head"]))


def test_single_images_in_equinox_without_jit():
    model = small("resnet")
    variables = randomised(model)
    module, state = flaim_eqx.wrap(model, variables)
    x = images(model)
    found, _ = jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)
    assert relative_error(found, model.apply(variables, x).value) < 1e-5
    training = eqx.nn.inference_mode(module, False)
    found, state = jax.vmap(training, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)
    expected = model.apply(variables, x, training=True)
    assert relative_error(found, expected.value) < 1e-4
    for a, b in zip(
        jax.tree.leaves(flaim_eqx.to_variables(training, state)["batch_stats"]), jax.tree.leaves(expected.batch_stats)
    ):
        assert relative_error(a, b) < 1e-4


def test_models_are_found_again():
    assert models.create("test_resnet") == models.create("test_resnet")
