"""`get_model` of every adapter, and what importing flaim costs."""

import importlib
import inspect
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim
from flaim import models, weights
from flaim.adapters import eqx, haiku, linen, nnx

ADAPTERS = {"linen": linen, "nnx": nnx, "eqx": eqx, "haiku": haiku}
OPTIONS = dict(n_classes=3, input_size=32, depths=(1, 1, 1, 1))


def variables_of(adapter, parts):
    """The canonical variables of what `get_model` returned before its last item."""
    return adapter.to_variables(*(parts[-1:] if adapter is linen else parts[1:] if adapter is haiku else parts))


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_random_models_are_the_framework_free_ones(adapter):
    _, expected, _ = models.get_model("test_resnet", pretrained=False, prng=5, **OPTIONS)
    *parts, norm_stats = adapter.get_model("test_resnet", pretrained=False, prng=5, **OPTIONS)
    assert norm_stats == {}
    chex.assert_trees_all_equal(variables_of(adapter, parts), expected)
    keyed = adapter.get_model("test_resnet", False, 3, 32, True, jax.random.key(5), depths=(1, 1, 1, 1))
    chex.assert_trees_all_equal(variables_of(adapter, keyed[:-1]), expected)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_a_checkpoint_in_every_framework(adapter, tmp_path):
    model, expected, _ = models.get_model("test_resnet", pretrained=False, prng=5, **OPTIONS)
    weights.save_pretrained(tmp_path, model, expected, preprocessing={"mean": (0.5,) * 3, "std": (0.25,) * 3})
    *parts, norm_stats = adapter.get_model(tmp_path, dtype="bfloat16")
    assert norm_stats == {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    chex.assert_trees_all_equal(variables_of(adapter, parts), expected)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_unknown_models_are_named_as_everywhere(adapter):
    with pytest.raises(LookupError, match="resnet5O"):
        adapter.get_model("resnet5O", pretrained=False)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_options_are_those_of_the_weights(adapter):
    expected = list(inspect.signature(weights.get_model).parameters.values())
    found = list(inspect.signature(adapter.get_model).parameters.values())
    assert [p for p in found if p.name not in ("rngs", "axis_name")] == expected


@pytest.mark.parametrize(
    ("extra", "framework"),
    [("linen", "flax"), ("nnx", "flax"), ("eqx", "equinox"), ("haiku", "haiku")],
)
def test_a_missing_framework_names_the_extra(extra, framework, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"flaim.adapters.{extra}")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(ImportError, match=rf'pip install "flaim\[{extra}\]"'):
        importlib.import_module(f"flaim.adapters.{extra}")


def test_importing_flaim_is_quick_and_imports_no_framework():
    code = (
        "import sys, time; start = time.process_time(); import flaim; seconds = time.process_time() - start\n"
        "heavy = {'jax', 'numpy', 'flax', 'equinox', 'haiku', 'torch', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert seconds < 0.3, seconds\n"
        "assert {'get_model', 'list_models', '__version__'} <= set(dir(flaim)) and flaim.__version__\n"
        "flaim.list_models('resnet')\n"
        "assert not {'flax', 'equinox', 'haiku', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flaim_itself_speaks_linen():
    assert flaim.get_model is linen.get_model and flaim.list_models is weights.list_models
    model, variables, _ = flaim.get_model("test_resnet", pretrained=False, **OPTIONS)
    assert isinstance(model, linen.ImageModel)
    logits = jax.eval_shape(model.apply, variables, jnp.zeros((2, 32, 32, 3)))
    assert logits.shape == (2, 3) and np.issubdtype(logits.dtype, np.float32)
    with pytest.raises(AttributeError, match="no attribute 'get_modle'"):
        _ = flaim.get_modle
