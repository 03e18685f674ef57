"""The Equinox adapter, as Equinox's users use it."""

import pickle

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
from tests.small import images as images_for
from tests.small import small


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


@pytest.mark.usefixtures("lenient")  # optax promotes
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


@pytest.mark.usefixtures("lenient")  # Equinox's layers promote
def test_a_replaced_head_gets_a_key(module, state, images):
    head = eqx.nn.Sequential([eqx.nn.Dropout(0.5), eqx.nn.Linear(8, 3, key=jax.random.key(0))])
    stem = lambda x: x[::2, ::2, :1] * jnp.ones(8)  # noqa: E731 -- takes no key
    module = eqx.nn.inference_mode(eqx.tree_at(lambda m: (m.head.fc, m.stem), module, (head, stem)), False)
    same = jnp.stack([images[0]] * 4)

    @eqx.filter_jit
    def logits_of(module, key):
        return module(same, state, key=key)[0]

    first = logits_of(module, jax.random.key(0))
    assert len(np.unique(first[:, 0])) == 4
    np.testing.assert_array_equal(first, logits_of(module, jax.random.key(0)))
    assert not np.array_equal(first, logits_of(module, jax.random.key(1)))


def test_equinoxs_own_convolution_takes_a_place(module, state, images, expected):
    def where(m):
        return m.layer1[1].conv1

    own = eqx.nn.Conv2d(8, 8, 3, padding=1, use_bias=False, key=jax.random.key(0))
    own = eqx.tree_at(lambda conv: conv.weight, own, where(module).kernel.transpose(3, 2, 0, 1))
    logits, state = run(eqx.tree_at(where, module, own), images, state)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    narrow = eqx.tree_at(where, module, eqx.nn.Conv2d(4, 8, 3, padding=1, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="feature dimension") as error:
        eqx.filter_eval_shape(narrow, images, state)
    notes = "".join(error.value.__notes__)
    assert "the Conv2d at layer1/1/conv1: it is given single samples, channels last, of shape (4, 4, 8) here" in notes
    with pytest.raises(ValueError, match=r"to replace layer1, where no kernel runs .* layer1/0, layer1/1"):
        eqx.filter_eval_shape(eqx.tree_at(lambda m: m.layer1, module, eqx.nn.Identity()), images, state)


@pytest.mark.usefixtures("lenient")  # the sum promotes
def test_nodes_can_be_called(module, state, images, expected_intermediates):
    @eqx.filter_jit
    def blocks(module, x, state):
        x = module.stem(x) + module.offset
        for block in module.layer1:
            x, state = block(x, state, inference=True)
        return x, module.layer1[-1].conv1(x[0])

    x, one = blocks(module, images, state)
    np.testing.assert_allclose(x, expected_intermediates["stage_1"], rtol=1e-5, atol=1e-6)
    assert len(module.layer1) == 2 and one.shape == (4, 4, 8)
    with pytest.raises(TypeError, match="layer1/1 runs otherwise in training: call it with inference=True or False"):
        module.layer1[1](x, state)
    with pytest.raises(ValueError, match="layer1/1 has running statistics: call it with the model's state"):
        module.layer1[1](x, inference=True)
    with pytest.raises(TypeError, match="no kernel runs at layer1"):
        module.layer1(x)


def test_nodes_train(module, state, images):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 4, 8)), jnp.float32)
    before = adapter.to_variables(module, state)["batch_stats"]["layer1"]
    train = eqx.filter_jit(lambda block, x, state, key: block(x, state, key=key, inference=False))
    _, state = train(module.layer1[1], x, state, jax.random.key(0))
    after = adapter.to_variables(module, state)["batch_stats"]["layer1"]
    chex.assert_trees_all_equal(before["0"], after["0"])
    mean = jnp.mean(module.layer1[1].conv1(x), (0, 1, 2))
    np.testing.assert_allclose(after["1"]["bn1"]["mean"], 0.9 * before["1"]["bn1"]["mean"] + 0.1 * mean, rtol=1e-5)


def test_nodes_are_called_after_kernels_and_pickle(module, state, images, expected):
    printed = eqx.tree_pformat(module)
    assert all(text in printed for text in ("layer1=List(", "0=Block(", "bn1=BatchNorm(", "fc=Linear(", "head=Group("))
    again = pickle.loads(pickle.dumps(module))
    assert jax.tree.structure(again) == jax.tree.structure(module)
    np.testing.assert_array_equal(run(again, images, state)[0], expected)


def test_frozen_batch_norm(module, variables, state, images, expected_frozen):
    module, key = eqx.nn.inference_mode(module, False), jax.random.key(7)
    frozen = eqx.filter_jit(lambda m, x, state: m(x, state, key=key, use_running_average=True))
    logits, new = frozen(module, images, state)
    np.testing.assert_array_equal(logits, expected_frozen)
    chex.assert_trees_all_equal(adapter.to_variables(module, new), variables)


def still(model):
    """The model without dropping: single images and batches draw different masks."""
    return model.replace(config=(("depth", 1), ("drop_rate", 0.0)))


def gradients_of(run, module, state):
    """Value, state and gradients of a loss of what `run(module, state)` gives."""

    def loss(module, state):
        logits, state = run(module, state)
        return jnp.mean(logits**2), (logits, state)

    (_, aux), gradients = eqx.filter_value_and_grad(loss, has_aux=True)(module, state)
    return aux, gradients


def test_gradients_of_single_images_are_the_batchs(model, variables, images):
    module, state = adapter.wrap(still(model), variables)
    module = eqx.nn.inference_mode(module, False)

    @eqx.filter_jit
    def mapped(module, state):
        call = lambda m, s: jax.vmap(m, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(images, s)  # noqa: E731
        return gradients_of(call, module, state)

    @eqx.filter_jit
    def whole(module, state):
        return gradients_of(lambda m, s: m(images, s), module, state)

    (logits, new), gradients = mapped(module, state)
    (expected, statistics), reference = whole(module, state)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    for found, right in ((new, statistics), (gradients, reference)):
        chex.assert_trees_all_close(jax.tree.leaves(found), jax.tree.leaves(right), rtol=1e-4, atol=1e-5)


def test_ensembles_of_single_images(model, variables, images):
    module, state = adapter.wrap(still(model), variables)
    arrays, static = eqx.partition((eqx.nn.inference_mode(module, False), state), eqx.is_array)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), arrays)

    @jax.jit
    def run(stacked):
        def one(arrays):
            module, state = eqx.combine(arrays, static)
            return jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(images, state)

        logits, state = jax.vmap(one)(stacked)
        return logits, jax.tree.leaves(state)

    logits, stats = run(stacked)
    expected, new = eqx.filter_jit(lambda m, s: m(images, s))(eqx.nn.inference_mode(module, False), state)
    np.testing.assert_allclose(logits[0], expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close([leaf[0] for leaf in stats], jax.tree.leaves(new), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["densenet", "efficientnet", "maxvit", "mobilenetv3", "nasnet", "resnet", "vgg"])
def test_training_on_single_images_in_every_family_with_batch_norm(family):
    model = small(family)
    x, (module, state) = images_for(model), adapter.wrap(model, model.init(jax.random.key(0)))
    module = eqx.nn.inference_mode(module, False)
    call = lambda m, s: jax.vmap(m, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, s)  # noqa: E731
    step = eqx.filter_jit(lambda module, state: gradients_of(call, module, state))
    (logits, new), gradients = eqx.filter_eval_shape(step, module, state)
    assert logits.shape == (2, 7)
    chex.assert_trees_all_equal_shapes(jax.tree.leaves(new), jax.tree.leaves(state))
    chex.assert_trees_all_equal_shapes(jax.tree.leaves(gradients), jax.tree.leaves(eqx.filter(module, eqx.is_array)))
