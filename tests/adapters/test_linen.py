"""The Linen adapter, as Linen's users use it."""

import functools

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import flaim_core as core
from flaim.adapters import linen


class Trainer(TrainState):
    batch_stats: dict


@pytest.fixture
def module(model, variables):
    return linen.wrap(model, variables)[0]


def test_variables_are_linens_collections(model, variables, images, expected):
    module, wrapped = linen.wrap(model, variables)
    chex.assert_trees_all_equal(wrapped, variables)
    chex.assert_trees_all_equal(linen.to_variables(flax.core.freeze(wrapped)), variables)
    np.testing.assert_array_equal(jax.jit(module.apply)(variables, images), expected)
    np.testing.assert_array_equal(jax.jit(module.apply)(flax.core.freeze(variables), images), expected)


def test_init_gives_the_models_own_values(model, module, images):
    key = jax.random.key(7)
    chex.assert_trees_all_equal(module.init(key, images), model.init(key))
    chex.assert_trees_all_equal(jax.jit(module.init)({"params": key}, images), model.init(key))
    value, _ = module.init_with_output(key, images)
    assert value.shape == (4, 5)


def test_training_updates_statistics(module, variables, images, expected_training):
    train = jax.jit(lambda v, x, key: module.apply(v, x, training=True, mutable=["batch_stats"], rngs={"dropout": key}))
    value, updates = train(variables, images, jax.random.key(7))
    np.testing.assert_array_equal(value, expected_training.value)
    chex.assert_trees_all_equal(updates, {"batch_stats": expected_training.batch_stats})
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        jax.eval_shape(lambda v: module.apply(v, images, training=True, rngs={"dropout": jax.random.key(7)}), variables)
    with pytest.raises(core.MissingKeyError, match=r'mask draws random numbers .* pass rngs=\{"dropout"'):
        jax.eval_shape(lambda v: module.apply(v, images, training=True, mutable=["batch_stats"]), variables)


def test_intermediates_are_sown(module, variables, images, expected, expected_intermediates):
    value, sown = jax.jit(lambda v, x: module.apply(v, x, mutable=["intermediates"]))(variables, images)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(module.apply)({**variables, **sown}, images), expected)
    chex.assert_trees_all_close(
        sown["intermediates"], {name: (value,) for name, value in expected_intermediates.items()}, rtol=1e-6
    )


@pytest.mark.usefixtures("lenient")  # optax promotes
def test_a_train_state_learns(module, variables, images, labels):
    state = Trainer.create(
        apply_fn=module.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.adam(1e-2),
    )

    @jax.jit
    def step(state, key):
        def loss(params):
            logits, updates = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                training=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients, batch_stats=updates["batch_stats"]), value

    losses = []
    for i in range(30):
        state, value = step(state, jax.random.key(i))
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert jax.tree.structure(state.params) == jax.tree.structure(variables["params"])


def test_tabulate_has_a_row_for_each_node(module, variables, images):
    table = nn.tabulate(module, jax.random.key(0), console_kwargs={"width": 160, "no_color": True})(images)
    for path in ("stem", "layer1/0/conv1", "layer1/1/bn1", "head/fc"):
        assert f"│ {path} " in table
    for kernel in ("Block", "Conv", "BatchNorm", "Linear", "List", "Group"):
        assert f"│ {kernel} " in table
    size = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert f"Total Parameters: {size:,}" in table
    assert "float32[4,5]" in table.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "flops" in nn.tabulate(module, jax.random.key(0), depth=1, compute_flops=True)(images)


def test_inside_a_users_module(module, variables, images):
    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, x, training=False):
            features = linen.ImageModel(module.model.replace(n_classes=-1), name="backbone")(x, training)
            return nn.Dense(3)(nn.Dropout(0.1, deterministic=not training)(features))

    classifier = Classifier()
    initial = jax.jit(classifier.init)(jax.random.key(0), images)
    backbone = {name: leaves for name, leaves in variables["params"].items() if name != "head"}
    chex.assert_trees_all_equal_shapes(initial["params"]["backbone"], backbone)
    loaded = {
        "params": {**initial["params"], "backbone": backbone},
        "batch_stats": {"backbone": variables["batch_stats"]},
    }
    train = functools.partial(classifier.apply, training=True, mutable=["batch_stats"])
    logits, updates = jax.jit(train)(loaded, images, rngs={"dropout": jax.random.key(0)})
    assert logits.shape == (4, 3)
    chex.assert_trees_all_equal_shapes(updates["batch_stats"], loaded["batch_stats"])


def test_lifted_transformations(module, variables, images, expected):
    ensemble = nn.vmap(
        linen.ImageModel,
        in_axes=None,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        axis_size=2,
    )(module.model)
    assert jax.eval_shape(ensemble.init, jax.random.key(0), images)["params"]["stem"]["kernel"].shape == (2, 2, 2, 3, 8)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
    np.testing.assert_allclose(jax.jit(ensemble.apply)(stacked, images)[1], expected, rtol=1e-4, atol=1e-5)
    remat = nn.remat(linen.ImageModel)(module.model)
    np.testing.assert_allclose(jax.jit(remat.apply)(variables, images), expected, rtol=1e-4, atol=1e-5)


def test_missing_and_misshapen_leaves_are_listed(module, variables, images):
    broken = jax.tree.map(lambda leaf: leaf, variables)
    del broken["params"]["stem"]["kernel"]
    broken["params"]["offset"] = jnp.zeros((1,))
    with pytest.raises(core.LeafError) as error:
        module.apply(broken, images)
    assert "params/stem/kernel: missing, expected shape (2, 2, 3, 8)" in str(error.value)
    assert "params/offset: found shape (1,), expected (8,)" in str(error.value)


def test_frozen_batch_norm(module, variables, images, expected_frozen):
    key = jax.random.key(7)
    frozen = functools.partial(module.apply, training=True, use_running_average=True)
    logits = jax.jit(lambda v, x: frozen(v, x, rngs={"dropout": key}))(variables, images)
    np.testing.assert_array_equal(logits, expected_frozen)
