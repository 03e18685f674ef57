"""`save_pretrained`, `from_pretrained` and `push_to_hub` of every framework: the same bits out of each."""

import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx as flax_nnx

import flaim_core
from flaim import weights
from flaim.adapters import _common, eqx, haiku, linen, nnx
from flaim.models import create

ADAPTERS = {"linen": linen, "nnx": nnx, "eqx": eqx, "haiku": haiku}
DETAILS = {"preprocessing": {"mean": (0.5,) * 3, "std": (0.25,) * 3}, "labels": ["a", "b", "c"], "license": "mit"}


def parts_of(adapter, model, variables) -> tuple:
    """What `get_model` returns before its last item."""
    wrapped = adapter.wrap(model, variables)
    return wrapped if isinstance(wrapped, tuple) else (wrapped,)


def canonical(adapter, parts) -> dict:
    return adapter.to_variables(*(parts[1:] if adapter in (linen, haiku) else parts))


@pytest.fixture(scope="module")
def model():
    return create("test_resnet", n_classes=3, input_size=32, widths=(16, 24, 24, 32))


@pytest.fixture(scope="module")
def variables(model):
    """Every leaf random, every other one in bfloat16."""
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    types = (jnp.float32, jnp.bfloat16)
    return tree.unflatten([jnp.asarray(rng.standard_normal(leaf.shape), types[i % 2]) for i, leaf in enumerate(leaves)])


@pytest.mark.parametrize("source", ADAPTERS.values(), ids=ADAPTERS)
def test_from_any_framework_to_any(source, model, variables, tmp_path):
    source.save_pretrained(tmp_path, *parts_of(source, model, variables), **DETAILS)
    for target in ADAPTERS.values():
        *parts, norm_stats = target.from_pretrained(tmp_path)
        chex.assert_trees_all_equal_dtypes(canonical(target, parts), variables)
        chex.assert_trees_all_equal(canonical(target, parts), variables)
        assert norm_stats == {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    found, tree, _ = weights.from_pretrained(tmp_path)
    assert found == model
    chex.assert_trees_all_equal(tree, variables)
    assert weights.load(tmp_path).config.labels == ("a", "b", "c")


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_options_of_from_pretrained(adapter, model, variables, tmp_path):
    weights.save_pretrained(tmp_path, model, variables)
    *parts, _ = adapter.from_pretrained(str(tmp_path), 7, 64, prng=3, dtype="bfloat16", in_channels=1)
    tree = canonical(adapter, parts)
    assert tree["params"]["fc"]["kernel"].shape[-1] == 7
    assert tree["params"]["conv1"]["0"]["kernel"].shape[2] == 1


def test_a_replaced_classifier_is_saved_with_its_classes(model, variables, tmp_path):
    module = nnx.wrap(model, variables)
    module.fc = flax_nnx.Linear(module.fc.in_features, 405, rngs=flax_nnx.Rngs(0))
    nnx.save_pretrained(tmp_path, module, labels=[f"class {i}" for i in range(405)])
    again, _ = nnx.from_pretrained(tmp_path)
    assert again.fc.out_features == 405
    chex.assert_trees_all_equal(nnx.to_variables(again), nnx.to_variables(module))


def test_a_trained_equinox_module_is_saved(model, variables, tmp_path):
    module, state = eqx.wrap(model, variables)
    trained = equinox.tree_at(lambda m: m.fc.bias, module, jnp.full(3, 2.0))
    eqx.save_pretrained(tmp_path, trained, state)
    assert np.all(np.asarray(weights.load(tmp_path).variables["params"]["fc"]["bias"]) == 2)


def test_layers_are_not_saved():
    layer = _common.make_layer(flaim_core.linear, {"features": 4})
    with pytest.raises(TypeError, match="only image models are saved, not layers such as linear"):
        _common.with_classes_of(layer, {"params": {}})


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_to_the_hub_and_back(adapter, model, variables, uploads):
    name = adapter.__name__.rpartition(".")[2]
    url = adapter.push_to_hub(f"org/{name}", *parts_of(adapter, model, variables), **DETAILS)
    assert url.startswith(f"{uploads.url}/org/{name}/commit/")
    *parts, _ = adapter.from_pretrained(f"org/{name}")
    chex.assert_trees_all_equal(canonical(adapter, parts), variables)
