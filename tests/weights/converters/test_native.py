"""Models saved in flaim's own format: what comes back, as they were and adapted, and what cannot be saved."""

import functools
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import flaim.models
import flaim_core as core
from flaim.options import choices
from flaim.weights import CheckpointError, get_model, load, save_pretrained
from flaim.weights.saving import writer

same = functools.partial(chex.assert_trees_all_equal, strict=True)

PREPROCESSING = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0), "interpolation": "bilinear", "crop_pct": 0.9}


@pytest.fixture
def own(tmp_path):
    """A model with options of its own, its variables, one of them in half precision, and the folder they are in."""
    options = {"depth": 2, "pool": choices("vit")["average_pool"]}
    model = flaim.models.create("test_vit", n_classes=3, input_size=(64, 96), in_channels=1, **options)
    variables = model.init(jax.random.key(0))
    variables["params"]["head"]["bias"] = jnp.array([1, 2, 3], jnp.bfloat16)
    folder = tmp_path / "new" / "folder"
    save_pretrained(
        folder, model, variables, preprocessing=PREPROCESSING, labels=["a", "b", "c"], license="mit", note="a test"
    )
    return model, variables, folder


def test_own_format_round_trip(own):
    model, variables, folder = own
    found, tree, norm_stats = get_model(f"local-dir:{folder}")
    assert found == model
    same(tree, variables)
    assert norm_stats == {"mean": PREPROCESSING["mean"], "std": PREPROCESSING["std"]}
    same(load(folder).variables, variables)
    config = load(folder).config
    assert (config.labels, config.license, config.note) == (("a", "b", "c"), "mit", "a test")
    assert config.preprocessing == {"input_size": (64, 96), "crop_mode": "center", **PREPROCESSING}


@pytest.mark.parametrize("n_classes", [-1, 0])
def test_own_format_without_a_classifier(tmp_path, n_classes):
    model = flaim.models.create("test_convnext", n_classes=n_classes)
    variables = model.init(jax.random.key(0))
    save_pretrained(tmp_path / "features", model, variables)
    found, tree, _ = get_model(tmp_path / "features")
    assert found == model
    same(tree, variables)
    fresh = get_model(tmp_path / "features", n_classes=3)[1]
    assert fresh["params"]["head"]["fc"]["kernel"].shape[-1] == 3


def test_own_format_alone(own, tmp_path):
    _, variables, folder = own
    shutil.copy(folder / "model.safetensors", tmp_path / "alone.safetensors")
    same(load(tmp_path / "alone.safetensors").variables, variables)


def test_own_format_adapts_too(own):
    model, _, folder = own
    found, variables, _ = get_model(folder, n_classes=5, input_size=(96, 96), in_channels=3)
    assert not core.mismatches(found.spec(), variables, extra=True)
    assert found.config == model.config
    wrong = folder.parent / "wrong"
    shutil.copytree(folder, wrong)
    save_file({"params/cls_token": np.zeros((1, 1, 64), np.float32)}, wrong / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"params/blocks/0/attn/qkv/kernel: missing, expected shape \(64, 192\)"):
        get_model(wrong)


def test_saving_what_does_not_fit(tmp_path):
    model = flaim.models.create("test_resnet", n_classes=2)
    variables = model.init(jax.random.key(0))
    del variables["params"]["fc"]["bias"]
    with pytest.raises(
        CheckpointError, match=r"(?s)params/fc/bias: missing.*3 labels for 2 classes.*preprocessing size"
    ):
        save_pretrained(tmp_path / "x", model, variables, labels=["a", "b", "c"], preprocessing={"size": 3})
    custom = flaim.models.create("test_vit", act=lambda x: x)
    with pytest.raises(CheckpointError, match="function is not JSON serializable"):
        save_pretrained(tmp_path / "x", custom, custom.init(jax.random.key(0)))
    assert not (tmp_path / "x").exists()


def test_interrupted_saving_leaves_the_old_files(own, monkeypatch):
    model, variables, folder = own
    (folder / "notes.txt").write_text("keep me")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(folder, model, jax.tree.map(jnp.zeros_like, variables))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    save_pretrained(folder, model, jax.tree.map(jnp.zeros_like, variables))
    assert not np.any(load(folder).variables["params"]["cls_token"])
    assert (folder / "notes.txt").read_text() == "keep me"


def test_functions_in_a_configuration_are_the_familys(own):
    _, _, folder = own
    config = json.loads((folder / "config.json").read_text())
    config["overrides"]["pool"] = {"function": "__import__"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"vit has no function .*__import__"):
        get_model(folder)


def test_fused_models_are_saved_as_such(tmp_path):
    model = flaim.models.create("test_resnet", input_size=32, n_classes=3)
    fused, variables = flaim.models.fuse(model, model.init(jax.random.key(0)))
    save_pretrained(tmp_path, fused, variables)
    loaded, again, _ = get_model(tmp_path)
    assert loaded == fused
    chex.assert_trees_all_equal(again, variables)
