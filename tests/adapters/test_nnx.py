"""The NNX adapter, as NNX's users use it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import flaim_core as core
from flaim.adapters import nnx as adapter


@pytest.fixture
def module(model, variables):
    return adapter.wrap(model, variables)


@nnx.jit
def run(module, x):
    return module(x)


def test_leaves_are_attributes(module, variables, images, expected):
    kernel = module.layer1[0].conv1.kernel
    assert isinstance(kernel, nnx.Param) and isinstance(module.layer1[1].bn1.var, nnx.BatchStat)
    np.testing.assert_array_equal(kernel[...], variables["params"]["layer1"]["0"]["conv1"]["kernel"])
    assert [block.conv1.kernel.shape for block in module.layer1] == [(3, 3, 8, 8)] * 2
    np.testing.assert_array_equal(run(module, images), expected)
    chex.assert_trees_all_equal(adapter.to_variables(module), variables)
    kernel[...] = jnp.zeros((3, 3, 8, 8))
    assert not np.array_equal(run(module, images), expected)
    assert not adapter.to_variables(module)["params"]["layer1"]["0"]["conv1"]["kernel"].any()


def test_state_and_split_and_merge(module, variables, images, expected):
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))) == size
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    chex.assert_trees_all_equal(nnx.to_pure_dict(stats), variables["batch_stats"])
    pure = jax.jit(lambda params, stats, x: nnx.merge(graphdef, params, stats)(x))
    np.testing.assert_array_equal(pure(params, stats, images), expected)
    nnx.update(module, jax.tree.map(jnp.zeros_like, params))
    assert not run(module, images).any()


def test_training_updates_statistics(module, images, expected, expected_training):
    @nnx.jit
    def train(module, x, key):
        return module(x, rngs=key)

    module.train()
    np.testing.assert_array_equal(train(module, images, jax.random.key(7)), expected_training.value)
    chex.assert_trees_all_equal(adapter.to_variables(module)["batch_stats"], expected_training.batch_stats)
    module.eval()
    before = adapter.to_variables(module)
    assert not np.array_equal(run(module, images), expected)
    chex.assert_trees_all_equal(adapter.to_variables(module), before)
    assert not nnx.view(module, deterministic=False).deterministic and module.deterministic


def test_dropout_needs_a_key(module, model, variables, images):
    module.train()
    with pytest.raises(core.MissingKeyError, match=r"mask draws .* pass rngs=nnx.Rngs\(dropout=0\)"):
        nnx.eval_shape(lambda module: module(images), module)
    module = adapter.wrap(model, variables, rngs=nnx.Rngs(dropout=0))
    module.train()
    first, second = run(module, images), run(module, images)
    assert not np.array_equal(first, second)
    again = adapter.wrap(model, variables, rngs=nnx.Rngs(dropout=0))
    again.train()
    np.testing.assert_array_equal(run(again, images), first)


def test_an_optimizer_learns(model, variables, images, labels):
    module = adapter.wrap(model, variables, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer):
        def loss(module):
            return optax.softmax_cross_entropy_with_integer_labels(module(images), labels).mean()

        value, gradients = nnx.value_and_grad(loss)(module)
        optimizer.update(module, gradients)
        return value

    module.train()
    losses = [float(step(module, optimizer)) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    trained = adapter.to_variables(module)
    chex.assert_trees_all_equal_shapes(trained, variables)
    assert not np.array_equal(trained["batch_stats"]["layer1"]["1"]["bn1"]["mean"], np.zeros(8))


def test_display_shows_paths_and_sizes(module, variables, capsys):
    nnx.display(module)
    shown = capsys.readouterr().out
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert f"ImageModel( # Param: {size:,}" in shown
    assert "layer1=List(" in shown and "fc=Linear(" in shown and "shape=(3, 3, 8, 8)" in shown


def test_the_classifier_is_replaced_by_assignment(module, variables, images, expected):
    assert type(module.head.fc) is nnx.Linear
    module.head.fc = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    features = module.head.fc.kernel[...]
    assert run(module, images).shape == (4, 3)
    np.testing.assert_array_equal(adapter.to_variables(module)["params"]["head"]["fc"]["kernel"], features)

    module.head.fc = nnx.Linear(8, 5, rngs=nnx.Rngs(0))
    assert run(module, images).shape == (4, 5)
    module.head.fc.kernel[...] = variables["params"]["head"]["fc"]["kernel"]
    module.head.fc.bias[...] = variables["params"]["head"]["fc"]["bias"]
    np.testing.assert_array_equal(run(module, images), expected)

    rngs = nnx.Rngs(0)
    module.head.fc = nnx.Sequential(
        nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
    )
    module.rngs = rngs.dropout.fork()
    module.train()
    assert run(module, images).shape == (4, 2)
    assert module.head.fc.layers[0].mean[...].any()
    gradients = nnx.jit(nnx.grad(lambda module: module(images).sum()))(module)
    assert gradients["head"]["fc"]["layers"][2]["kernel"].shape == (8, 2)
    with pytest.raises(ValueError, match="head/fc: Sequential"):
        adapter.to_variables(module)
    module.head.fc = None
    with pytest.raises(TypeError, match="head/fc is None, expected a module"):
        module(images)


def test_any_node_is_replaced_by_assignment(module, images, expected):
    module.layer1[1] = adapter.layers.Conv((4, 4, 4, 8), 8, kernel_size=1, rngs=nnx.Rngs(0))
    assert not np.array_equal(run(module, images), expected)
    assert adapter.to_variables(module)["params"]["layer1"]["1"]["kernel"].shape == (1, 1, 8, 8)
    with pytest.raises(IndexError, match="no node 2"):
        module.layer1[2]


def test_intermediates_are_captured(module, images, expected, expected_intermediates):
    value, captured = nnx.capture(module, nnx.Intermediate)(images)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    found = nnx.to_pure_dict(captured)
    chex.assert_trees_all_close(found, {k: (v,) for k, v in expected_intermediates.items()}, rtol=1e-4, atol=1e-5)
    assert not hasattr(module, "stage_0")


def test_inside_a_users_module(model, variables, images):
    class Classifier(nnx.Module):
        def __init__(self, rngs):
            self.backbone = adapter.wrap(model.replace(n_classes=-1), variables, rngs=rngs)
            self.fc = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.fc(self.backbone(x))

    classifier = Classifier(nnx.Rngs(0))
    classifier.train()
    assert not classifier.backbone.deterministic
    assert run(classifier, images).shape == (4, 3)
    classifier.eval()
    assert classifier.backbone.deterministic
