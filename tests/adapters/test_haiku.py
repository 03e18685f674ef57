"""The Haiku adapter, as Haiku's users use it."""

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaim_core as core
from flaim.adapters import haiku as adapter
from flaim.models import Model


@core.kernel
def plain(scope, x, *, n_classes):
    return core.classifier(scope["fc"], core.ops.global_avg_pool(x), n_classes)


@pytest.fixture(scope="module")
def wrapped(model, variables):
    return adapter.wrap(model, variables)


def test_variables_have_haikus_two_levels(wrapped, variables, images, expected):
    transformed, params, state = wrapped
    assert isinstance(transformed, hk.TransformedWithState)
    assert set(params["tiny/layer1/0/conv1"]) == {"kernel"} and set(params["tiny"]) == {"offset"}
    assert set(state) == {"tiny/layer1/0/bn1", "tiny/layer1/1/bn1"}
    chex.assert_trees_all_equal(adapter.to_variables(params, state), variables)
    logits, same = jax.jit(transformed.apply)(params, state, None, images)
    np.testing.assert_array_equal(logits, expected)
    chex.assert_trees_all_equal(same, state)


def test_init_gives_the_models_own_values(wrapped, model, images):
    transformed, params, state = wrapped
    found = transformed.init(jax.random.key(3), images)
    chex.assert_trees_all_equal(adapter.to_variables(*found), model.init(jax.random.key(3)))
    chex.assert_trees_all_equal_shapes(found, (params, state))
    seeded, _ = transformed.init(3, images)
    chex.assert_trees_all_equal(seeded, transformed.init(jax.random.PRNGKey(3), images, is_training=True)[0])


def test_training_updates_state(wrapped, images, expected_training):
    transformed, params, state = wrapped
    train = jax.jit(lambda p, s, key, x: transformed.apply(p, s, key, x, is_training=True))
    logits, new = train(params, state, jax.random.key(7), images)
    np.testing.assert_array_equal(logits, expected_training.value)
    chex.assert_trees_all_equal(adapter.to_variables(params, new)["batch_stats"], expected_training.batch_stats)
    with pytest.raises(core.MissingKeyError, match=r"mask draws .* pass a random key to apply"):
        jax.eval_shape(lambda p, s: transformed.apply(p, s, None, images, is_training=True), params, state)


def test_data_structures_traverse_the_parameters(wrapped, variables):
    _, params, _ = wrapped
    names = {f"{module}/{name}" for module, name, _ in hk.data_structures.traverse(params)}
    assert names == {f"tiny/{path}" for path in core.flatten(variables["params"])}
    head, body = hk.data_structures.partition(lambda module, name, value: "head" in module, params)
    assert list(head) == ["tiny/head/fc"]
    chex.assert_trees_all_equal(hk.data_structures.merge(head, body), params)
    frozen = hk.data_structures.map(lambda module, name, value: jnp.zeros_like(value), params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(frozen))
    assert hk.data_structures.tree_size(params) == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.usefixtures("lenient")  # optax promotes
def test_an_update_loop_learns(wrapped, images, labels):
    transformed, params, state = wrapped
    optimizer = optax.adam(1e-2)
    optimizer_state = optimizer.init(params)

    @jax.jit
    def step(params, state, optimizer_state, key):
        def loss(params):
            logits, new = transformed.apply(params, state, key, images, is_training=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

        (value, new), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, new_optimizer_state = optimizer.update(gradients, optimizer_state)
        return optax.apply_updates(params, updates), new, new_optimizer_state, value

    losses = []
    for i in range(30):
        params, state, optimizer_state, value = step(params, state, optimizer_state, jax.random.key(i))
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_intermediates(wrapped, images, expected, expected_intermediates):
    transformed, params, state = wrapped
    capture = jax.jit(transformed.apply, static_argnames="capture")
    (logits, found), _ = capture(params, state, None, images, capture="*")
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    chex.assert_trees_all_close(found, expected_intermediates, rtol=1e-5)


def test_inside_a_users_transform(wrapped, model, images):
    def network(x, is_training):
        features = adapter.ImageModel(model.replace(n_classes=-1))(x, is_training)
        features = adapter.layers.BatchNorm()(features, is_training)
        return hk.Linear(3)(features)

    _, pretrained, statistics = wrapped
    transformed = hk.transform_with_state(network)
    params, state = jax.jit(transformed.init, static_argnums=2)(jax.random.key(0), images, True)
    assert set(params) == set(pretrained) - {"tiny/head/fc"} | {"batch_norm", "linear"}
    assert set(state) == {*statistics, "batch_norm"}
    params = hk.data_structures.merge(params, {k: v for k, v in pretrained.items() if k in params})
    state = hk.data_structures.merge(state, statistics)
    train = jax.jit(lambda p, s, key, x: transformed.apply(p, s, key, x, True))
    logits, new = train(params, state, jax.random.key(0), images)
    assert logits.shape == (4, 3)
    for name in ("tiny/layer1/0/bn1", "batch_norm"):
        assert not np.array_equal(new[name]["mean"], state[name]["mean"])
    again, same = jax.jit(lambda p, s, x: transformed.apply(p, s, None, x, False))(params, state, images)
    chex.assert_trees_all_equal(same, state)
    assert not np.array_equal(again, logits)


def test_a_module_called_twice_shares_its_parameters(images):
    def network(x):
        attention = adapter.layers.Attention(num_heads=2)
        return attention(attention(x))

    transformed = hk.without_apply_rng(hk.transform(network))
    tokens = images.reshape(4, 24, 8)
    params = transformed.init(jax.random.key(0), tokens)
    assert set(params) == {"attention/qkv", "attention/proj"}
    nested = adapter.to_variables(params, {})["params"]
    expected = core.attention(nested, core.attention(nested, tokens, num_heads=2), num_heads=2)
    np.testing.assert_allclose(transformed.apply(params, tokens), expected, rtol=1e-5, atol=1e-6)


def test_haikus_own_tools(wrapped, images, expected):
    transformed, params, state = wrapped
    logits, _ = jax.jit(hk.without_apply_rng(transformed).apply)(params, state, images)
    np.testing.assert_array_equal(logits, expected)
    table = hk.experimental.tabulate(transformed)(images)
    assert "tiny (ImageModel)" in table and "f32[4,5]" in table and "offset: f32[8]" in table
    with pytest.raises(ValueError, match=r"use `hk.transform_with_state`"):
        hk.without_state(transformed).init(jax.random.key(0), images)
    stateless = Model("plain", plain, classifier="fc", input_size=(8, 8), n_classes=2)
    transformed, params, _ = adapter.wrap(stateless, stateless.init(jax.random.key(0)))
    pure = hk.without_apply_rng(hk.without_state(transformed))
    chex.assert_trees_all_equal(pure.init(jax.random.key(0), images), params)
    assert jax.jit(pure.apply)(params, images).shape == (4, 2)


def test_frozen_batch_norm(wrapped, images, expected_frozen):
    transformed, params, state = wrapped
    key = jax.random.key(7)
    logits, new = jax.jit(lambda p, s, x: transformed.apply(p, s, key, x, is_training=True, use_running_average=True))(
        params, state, images
    )
    np.testing.assert_array_equal(logits, expected_frozen)
    chex.assert_trees_all_equal(new, state)
