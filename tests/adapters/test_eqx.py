"""The Equinox adapter, as Equinox's users use it."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaim_core as core
from flaim.adapters import eqx as adapter
from flaim.models import Model


@pytest.fixture
def module(model, variables):
    return adapter.wrap(model, variables)[0]


@pytest.fixture
def state(model, variables):
    return adapter.wrap(model, variables)[1]


@eqx.filter_jit
def run(module, x, state, key=None):
    return module(x, state, key=key)


@eqx.filter_jit
def map_images(module, x, state, axis_name="batch"):
    return jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name=axis_name)(x, state)


def test_batches_and_single_images(module, state, variables, images, expected):
    logits, state = run(module, images, state)
    np.testing.assert_array_equal(logits, expected)
    one, state = run(module, images[0], state)
    np.testing.assert_allclose(one, expected[0], rtol=1e-5)
    mapped, state = map_images(module, images, state)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5)
    chex.assert_trees_all_equal(adapter.to_variables(module, state), variables)


def test_training_on_batches(module, state, images, expected_training):
    module = eqx.nn.inference_mode(module, False)
    logits, state = run(module, images, state, jax.random.key(7))
    np.testing.assert_array_equal(logits, expected_training.value)
    chex.assert_trees_all_equal(adapter.to_variables(module, state)["batch_stats"], expected_training.batch_stats)
    with pytest.raises(core.MissingKeyError, match=r"mask draws .* pass key=jax.random.key"):
        eqx.filter_eval_shape(module, images, state)


def test_training_on_single_images_takes_the_batchs_statistics(model, variables, images):
    still = model.replace(config=(("drop_rate", 0.0), ("depth", 1)))
    module, state = adapter.wrap(still, variables)
    module = eqx.nn.inference_mode(module, False)
    logits, new = map_images(module, images, state)
    output = jax.jit(lambda v, x: still.apply(v, x, training=True))(variables, images)
    np.testing.assert_allclose(logits, output.value, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(
        adapter.to_variables(module, new)["batch_stats"], output.batch_stats, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(NameError, match=r"call the module under jax.vmap"):
        eqx.filter_eval_shape(module, images[0], state)
    renamed, state = adapter.wrap(still, variables, axis_name="images")
    renamed = eqx.nn.inference_mode(renamed, False)
    again, _ = map_images(renamed, images, state, axis_name="images")
    np.testing.assert_array_equal(again, logits)


def test_each_image_has_a_key_of_its_own(module, state, images):
    module = eqx.nn.inference_mode(module, False)
    images = jnp.stack([images[0]] * 4)
    keys = jax.random.split(jax.random.key(0), 4)
    mapped = jax.vmap(lambda x, key: module(x, state, key=key), axis_name="batch", out_axes=(0, None))
    logits, _ = eqx.filter_jit(mapped)(images, keys)
    assert len(np.unique(logits[:, 0])) == 4


def test_inference_mode_reaches_replaced_modules(module, state, images):
    head = eqx.nn.Sequential([eqx.nn.Linear(8, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.5)])
    module = eqx.tree_at(lambda m: m.head.fc, module, head)
    training = eqx.nn.inference_mode(module, False)
    assert not training.inference and not training.head.fc.layers[1].inference
    module = eqx.nn.inference_mode(training)
    assert run(module, images, state)[0].shape == (4, 3)
    with pytest.raises(ValueError, match="head/fc: Sequential"):
        adapter.to_variables(module, state)
    module = eqx.tree_at(lambda m: m.head.fc, module, adapter.layers.Linear(8, 3, key=jax.random.key(0)))
    assert run(module, images, state)[0].shape == (4, 3)
    assert adapter.to_variables(module, state)["params"]["head"]["fc"]["kernel"].shape == (8, 3)


def test_tree_at_on_a_leaf(module, state, images, expected):
    def where(m):
        return m.layer1[1].conv1.kernel

    changed = eqx.tree_at(where, module, jnp.zeros((3, 3, 8, 8)))
    assert not where(changed).any() and where(module).any()
    assert not np.array_equal(run(changed, images, state)[0], expected)
    assert not adapter.to_variables(changed, state)["params"]["layer1"]["1"]["conv1"]["kernel"].any()
    with pytest.raises(AttributeError, match="Block has no attribute 'conv9'"):
        eqx.tree_at(lambda m: m.layer1[1].conv9, module, 0)
    with pytest.raises(IndexError, match="no node 2"):
        eqx.tree_at(lambda m: m.layer1[2], module, 0)


def test_filtered_gradients_learn(module, state, variables, images, labels):
    module = eqx.nn.inference_mode(module, False)
    optimizer = optax.adam(1e-2)
    optimizer_state = optimizer.init(eqx.filter(module, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(module, state, optimizer_state, key):
        def loss(module, state):
            logits, state = module(images, state, key=key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), state

        (value, state), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(module, state)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return eqx.apply_updates(module, updates), state, optimizer_state, value

    losses = []
    for i in range(30):
        module, state, optimizer_state, value = step(module, state, optimizer_state, jax.random.key(i))
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    chex.assert_trees_all_equal_shapes(adapter.to_variables(module, state), variables)


def test_serialised_leaves_come_back(module, state, model, variables, tmp_path):
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", (module, state))
    like = adapter.wrap(model, model.init(jax.random.key(9)))
    found = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", like)
    chex.assert_trees_all_equal(adapter.to_variables(*found), variables)


def test_intermediates(module, state, images, expected, expected_intermediates):
    (logits, found), state = eqx.filter_jit(module)(images, state, capture="stage_*")
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    chex.assert_trees_all_close(found, expected_intermediates, rtol=1e-5)
    (_, found), state = eqx.filter_jit(module)(images[1], state, capture="stage_1")
    np.testing.assert_allclose(found["stage_1"], expected_intermediates["stage_1"][1], rtol=1e-4, atol=1e-5)


def test_printing_shows_the_tree(module):
    printed = str(module)
    assert printed.startswith("ImageModel(") and "kernel=f32[3,3,8,8]" in printed and "inference=True" in printed


def test_a_model_without_statistics_needs_no_axis(images):
    @core.kernel
    def plain(scope, x, *, n_classes):
        return core.classifier(scope["fc"], core.ops.global_avg_pool(x), n_classes)

    model = Model("plain", plain, classifier="fc", input_size=(8, 8), n_classes=2)
    module, state = adapter.wrap(model, model.init(jax.random.key(0)))
    module = eqx.nn.inference_mode(module, False)
    assert run(module, images[0], state)[0].shape == (2,)
    assert list(adapter.to_variables(module, state)) == ["params"]
