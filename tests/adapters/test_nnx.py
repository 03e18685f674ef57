"""The NNX adapter, as NNX's users use it."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import flaim_core as core
from flaim import models
from flaim.adapters import nnx as adapter
from tests.small import images as images_for
from tests.small import small


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


@pytest.mark.usefixtures("lenient")  # optax promotes
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
    assert "layer1=List(" in shown and "0=Block(" in shown and "bn1=BatchNorm(" in shown and "conv1=Conv(" in shown
    assert "head=Group(" in shown and "fc=Linear(" in shown and "shape=(3, 3, 8, 8)" in shown


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


class Wrapper(nnx.Module):
    """A user's module around a node."""

    def __init__(self, base):
        self.base = base

    def __call__(self, x):
        return self.base(x)


def test_attributes_of_ones_own(module, variables, images, expected):
    module.step, module.layer1.note, module.loss_function = 3, "frozen", optax.l2_loss
    module.scale = nnx.Param(jnp.ones(3))
    module.layer1[0].seen = nnx.BatchStat(jnp.zeros(()))
    module.accuracy = nnx.metrics.Accuracy()
    np.testing.assert_array_equal(run(module, images), expected)
    chex.assert_trees_all_equal(adapter.to_variables(module), variables)
    again = nnx.merge(*nnx.split(module))
    assert (again.step, again.layer1.note, again.scale.shape) == (3, "frozen", (3,))
    np.testing.assert_array_equal(run(again, images), expected)


def test_streams_that_dropout_does_not_need(model, variables, images, expected):
    module = adapter.wrap(model, variables, rngs=nnx.Rngs(params=0))
    np.testing.assert_array_equal(run(module, images), expected)
    assert module(images[:1], rngs=nnx.Rngs(params=0)).shape == (1, 5)
    module.train()
    with pytest.raises(core.MissingKeyError, match=r"pass rngs=nnx.Rngs\(dropout=0\)"):
        nnx.eval_shape(lambda module: module(images, rngs=nnx.Rngs(params=0)), module)


@pytest.mark.usefixtures("lenient")  # `+ module.offset` promotes ranks
def test_nodes_are_called_one_by_one(module, images, expected_intermediates):
    @nnx.jit
    def stages(module, x):
        x = module.stem(x) + module.offset[...]
        found = [x]
        for block in module.layer1:
            x = block(x)
        return [*found, x], module.head.fc(jnp.mean(x, (1, 2)))

    found, logits = stages(module, images)
    expected = [expected_intermediates[name] for name in ("stage_0", "stage_1")]
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, run(module, images), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="no kernel runs at layer1, so it cannot be called; what is below it can: 0, 1"):
        module.layer1(images)


def test_nodes_train(module, images):
    x = jnp.ones((4, 4, 4, 8))
    module.train()
    assert not module.layer1[1].deterministic and not module.layer1[1].bn1.use_running_average
    before = module.layer1[1].bn1.mean[...]
    key = jax.random.key(0)
    dropped = nnx.jit(lambda block, x, key: block(x, rngs=key))(module.layer1[1], x, key)
    assert not np.array_equal(before, module.layer1[1].bn1.mean[...])
    kept = nnx.jit(lambda block, x: block(x, deterministic=True))(module.layer1[1], x)
    assert not np.array_equal(dropped, kept)
    with pytest.raises(core.MissingKeyError, match="layer1/1/drop_path/mask draws"):
        nnx.eval_shape(lambda block: block(x), module.layer1[1])


def test_a_module_around_a_node_changes_nothing(module, images, expected, expected_training):
    for path, node in (("stem", module.stem), ("0", module.layer1[0]), ("1", module.layer1[1])):
        setattr(module if path == "stem" else module.layer1, path, Wrapper(node))
    np.testing.assert_allclose(run(module, images), expected, rtol=1e-5, atol=1e-6)
    module.train()
    value = nnx.jit(lambda module, x, key: module(x, rngs=key))(module, images, jax.random.key(7))
    np.testing.assert_allclose(value, expected_training.value, rtol=1e-5, atol=1e-6)
    stats = expected_training.batch_stats["layer1"]["1"]["bn1"]
    np.testing.assert_allclose(module.layer1[1].base.bn1.mean[...], stats["mean"], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="layer1/1: Wrapper"):
        adapter.to_variables(module)


@pytest.mark.parametrize("family", models.families())
def test_every_node_of_every_family_is_callable(family):
    model = small(family)
    x, module = images_for(model), adapter.wrap(model, model.init(jax.random.key(0)))
    wrapped = []

    def wrap(node):
        for name in node._site.names:
            child = getattr(node, name)
            if isinstance(child, adapter._nodes.Node):
                assert type(child).__name__ not in ("Node", "KernelModule")
                if child._site.is_simple:
                    setattr(node, name, Wrapper(child))
                    wrapped.append(name)
                else:  # no kernel, or one that takes other arrays too
                    wrap(child)

    wrap(module)
    assert len(wrapped) > 3
    assert nnx.eval_shape(lambda module, x: module(x), module, x).shape == (2, 7)


@pytest.mark.usefixtures("lenient")  # optax promotes
def test_low_rank_adapters(images):
    model = small("vit", depth=2)
    variables, x = model.init(jax.random.key(0)), images_for(model)
    module, rngs = adapter.wrap(model, variables, rngs=nnx.Rngs(0)), nnx.Rngs(1)
    expected = run(module, x)
    for block in module.blocks:
        width, out = block.attn.qkv.kernel.shape
        block.attn.qkv = nnx.LoRA(width, 4, out, base_module=block.attn.qkv, rngs=rngs)
    linear = nnx.LoRALinear(module.head.in_features, 7, lora_rank=2, rngs=rngs)
    linear.kernel[...], linear.bias[...] = variables["params"]["head"]["kernel"], variables["params"]["head"]["bias"]
    module.head = linear
    np.testing.assert_allclose(run(module, x), expected, rtol=1e-5, atol=1e-5)

    optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.LoRAParam)

    @nnx.jit
    def step(module, optimizer):
        def loss(module):
            return jnp.mean((module(x) - 1) ** 2)

        value, gradients = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam))(module)
        optimizer.update(module, gradients)
        return value

    module.train()
    losses = [float(step(module, optimizer)) for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    module.eval()
    trained = run(module, x)
    for name in ("blocks/1/attn/qkv: LoRA ", "head: LoRALinear "):
        with pytest.raises(ValueError, match=rf"{name}\(merge_lora=True merges it\)"):
            adapter.to_variables(module)
    merged = adapter.to_variables(module, merge_lora=True)
    chex.assert_trees_all_equal_shapes(merged, variables)
    np.testing.assert_allclose(run(adapter.wrap(model, merged), x), trained, rtol=1e-4, atol=1e-5)
    assert type(module.head) is nnx.LoRALinear


def test_only_linear_itself_owns_leaves(module):
    class Normalised(nnx.Linear):
        def __call__(self, x):
            return super().__call__(x) / jnp.linalg.norm(self.kernel[...])

    module.head.fc = Normalised(8, 5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"head/fc: Normalised$"):
        adapter.to_variables(module, merge_lora=True)


def test_numbered_nodes(module):
    assert len(module.layer1) == 2 and module.layer1[-1] is module.layer1[1] and module.layer1[-2] is module.layer1[0]
    assert list(module.layer1) == module.layer1[:] == [module.layer1[0], module.layer1[1]]
    assert len(module.stem) == 0 and module.stem
    with pytest.raises(IndexError, match="no node -3"):
        module.layer1[-3]
    model = small("resnet")
    stem = adapter.wrap(model, model.init(jax.random.key(0))).conv1
    assert (
        len(stem) == 5 and stem[-1] is stem[6] and [type(node).__name__ for node in stem][:2] == ["Conv", "BatchNorm"]
    )


def test_modules_where_no_kernel_runs(module, model, variables):
    linear = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    for node, name, message in (
        (module, "fc", r"tiny has no kernel 'fc' .* its classifier is 'head/fc'; it has head, layer1, offset, stem"),
        (module, "layer1", r"replace what is below it, one by one: layer1/0, layer1/1"),
        (module.layer1[1], "conv9", r"layer1/1 has no kernel 'conv9' .*; it has bn1, conv1"),
        (adapter.wrap(model.replace(n_classes=-1), variables), "fc", "it is without a classifier"),
    ):
        with pytest.raises(AttributeError, match=message):
            setattr(node, name, linear)
    resnet = adapter.wrap(small("resnet"), small("resnet").init(jax.random.key(0)))
    with pytest.raises(AttributeError, match="its classifier is 'fc'"):
        resnet.head = linear


@pytest.mark.usefixtures("lenient")  # `* jnp.ones(8)` promotes ranks
def test_frozen_batch_norm(model, variables, images, expected_frozen):
    module = adapter.wrap(model, variables, rngs=nnx.Rngs(0))
    module.train()
    module.set_attributes(nnx.BatchNorm, use_running_average=True)
    call = nnx.jit(lambda module, x, key: module(x, rngs=key))
    key = jax.random.key(7)
    np.testing.assert_array_equal(call(module, images, key), expected_frozen)
    chex.assert_trees_all_equal(adapter.to_variables(module)["batch_stats"], variables["batch_stats"])
    module.layer1[1].bn1.use_running_average = False
    call(module, images, key)
    stats = adapter.to_variables(module)["batch_stats"]["layer1"]
    chex.assert_trees_all_equal(stats["0"], variables["batch_stats"]["layer1"]["0"])
    assert not np.array_equal(stats["1"]["bn1"]["mean"], variables["batch_stats"]["layer1"]["1"]["bn1"]["mean"])
    view = nnx.view(module, deterministic=True, use_running_average=True)
    assert view.layer1[1].bn1.use_running_average and not module.layer1[1].bn1.use_running_average
    assert "use_running_average: bool | None = None" in nnx.view_info(module)
    layer = adapter.layers.BatchNorm(8, rngs=nnx.Rngs(0))
    layer.set_attributes(nnx.BatchNorm, use_running_average=True)
    np.testing.assert_allclose(layer(images[..., :1] * jnp.ones(8)), images[..., :1] * jnp.ones(8), rtol=1e-4)


def test_tabulate_has_a_row_for_each_node(module, images):
    table = nnx.tabulate(module, images, console_kwargs={"width": 160, "force_terminal": False})
    for row in ("stem ", "layer1/0 ", "layer1/1/conv1 ", "layer1/1/bn1 ", "head/fc "):
        assert f"│ {row}" in table
    assert "│ Block " in table and "float32[4,5]" in table


def test_copies(module, images, expected):
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), nnx.clone(module)):
        assert nnx.graphdef(again) == nnx.graphdef(module) and hash(nnx.graphdef(again)) == hash(nnx.graphdef(module))
        np.testing.assert_array_equal(run(again, images), expected)
        assert type(again.layer1[0]) is type(module.layer1[0])


def test_an_ensemble_by_vmap(model, images):
    @nnx.vmap
    def make(key):
        return adapter.wrap(model, model.init(key))

    ensemble = make(jax.random.split(jax.random.key(0), 3))
    logits = nnx.jit(nnx.vmap(lambda module, x: module(x), in_axes=(0, None)))(ensemble, images)
    assert logits.shape == (3, 4, 5) and len(np.unique(logits[:, 0, 0])) == 3
