"""Checkpoints of timm: conversion, adaptation to other models, and every kind of bad file."""

import shutil
import struct

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import flaim.models
import flaim_core as core
from flaim.weights import (
    CheckpointError,
    CheckpointInfo,
    Preprocessing,
    get_model,
    load,
)
from flaim.weights.assign import assign
from flaim.weights.formats import read as read_safetensors
from tests import oracle, parity
from tests.oracle import timm
from tests.parity import assert_same_output

TOLERANCE = 1e-5

# One small model a family.
SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
SMALL = {
    "test_convnext": {},
    "test_efficientnet": {},
    "test_maxvit": {},
    "test_resnet": {},
    "test_vit": {},
    "swin_tiny_patch4_window7_224": SWIN,
}


def timm_from(folder, **kwargs) -> torch.nn.Module:
    """timm's own adaptation of a saved checkpoint."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


def assert_same_weights(model, variables, reference) -> None:
    """The variables are those of timm's model, to the rounding of resampled ones: torch interpolates in float32."""
    expected = core.flatten(parity.variables_from(model.spec(), oracle.state(reference)))
    found = core.flatten(variables)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert oracle.relative_error(found[path], value) < 5e-6, path


def damaged(folder, tmp_path, change) -> str:
    """A copy of a saved checkpoint whose tensors went through `change`."""
    target = tmp_path / "damaged"
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return f"local-dir:{target}"


# Reading


def test_reads_every_float_type(tmp_path):
    tensors = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "brain": np.arange(6).astype(ml_dtypes.bfloat16).reshape(3, 2),
        "single": np.arange(4, dtype=np.float32),
        "double": np.array(1.5),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(tensors, tmp_path / "file.safetensors")
    found = read_safetensors(tmp_path / "file.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)
        assert not found[name].flags.writeable or name == "empty"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(saved, tmp_path, dtype):
    _, folder = saved("test_resnet")

    def cast(tensors):
        tensors.update({k: v.astype(dtype) for k, v in tensors.items() if v.dtype == np.float32})

    _, variables, _ = get_model(damaged(folder, tmp_path, cast))
    _, expected, _ = get_model(f"local-dir:{folder}")
    lower = jax.tree.map(lambda v: jnp.asarray(np.asarray(v).astype(dtype), jnp.float32), expected)
    chex.assert_trees_all_equal(variables, lower, strict=True)


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1, -1000])
def test_truncated_file(saved, tmp_path, size):
    _, folder = saved("test_resnet")
    content = (folder / "model.safetensors").read_bytes()
    path = tmp_path / "short.safetensors"
    path.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"short\.safetensors is not an intact safetensors file .*incomplete"):
        get_model("resnet18", pretrained=path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\n" * 4,
        struct.pack("<Q", 20) + b"{not json at all....",
        struct.pack("<Q", 66) + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}}           ' + b"\0" * 8,
    ],
)
def test_corrupt_file(tmp_path, content):
    path = tmp_path / "corrupt.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"corrupt\.safetensors is not an intact safetensors file"):
        read_safetensors(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder or file .*nowhere\.safetensors"):
        get_model("resnet18", pretrained=tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="no folder or file org/name; a repository on the Hub is 'hf-hub:"):
        get_model("org/name")


# timm's checkpoints


@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=SMALL)
def test_folder(saved, name, options):
    reference, folder = saved(name, **options)
    model, variables, norm_stats = get_model(f"local-dir:{folder}")
    cfg = reference.pretrained_cfg
    assert model.name == name
    assert model.n_classes == 1000
    assert norm_stats == {"mean": tuple(cfg["mean"]), "std": tuple(cfg["std"])}
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(variables))
    assert not core.mismatches(model.spec(), variables, extra=True)
    assert_same_weights(model, variables, reference)
    if name in ("test_resnet", "test_vit"):
        assert_same_output(model, variables, reference)


def test_load(saved):
    reference, folder = saved("test_vit")
    for source in (folder, str(folder), f"local-dir:{folder}", folder / "model.safetensors"):
        variables, config = load(source)
        assert (config.architecture, config.family, config.n_classes) == ("test_vit", "vit", 1000)
    model = flaim.models.create(config.architecture, config.n_classes, config.input_size)
    assert_same_weights(model, variables, reference)


def test_named_model_with_a_file(saved, tmp_path):
    """A file without a configuration is of the named model; its classifier says how many classes there are."""
    reference, folder = saved("test_resnet", num_classes=7)
    path = tmp_path / "weights.safetensors"
    shutil.copy(folder / "model.safetensors", path)
    model, variables, norm_stats = get_model("test_resnet", pretrained=path)
    assert model.n_classes == 7
    assert norm_stats["mean"] == (0.5, 0.5, 0.5)  # of the named model
    assert_same_weights(model, variables, reference)
    with pytest.raises(CheckpointError, match=r"has no config\.json to say which model it is"):
        get_model(path)
    with pytest.raises(CheckpointError, match=r"has no config\.json to say which model it is"):
        load(path)


def test_named_model_with_a_folder(saved):
    _, folder = saved("test_resnet")
    model, _, _ = get_model("test_resnet", pretrained=str(folder))
    assert model.name == "test_resnet"
    with pytest.raises(CheckpointError, match="holds a test_resnet, not a resnet50"):
        get_model("resnet50", pretrained=folder)


def test_missing_unexpected_and_misshapen_in_one_error(saved, tmp_path):
    _, folder = saved("test_resnet")

    def damage(tensors):
        del tensors["bn1.weight"]
        tensors["bn9.weight"] = np.zeros(4, np.float32)
        tensors["layer1.0.conv1.weight"] = np.zeros((2, 3, 3, 3), np.float32)
        tensors["layer1.0.bn1.bias"] = np.zeros(1, np.float32)
        tensors["fc.bias"] = np.zeros(1000, np.int64)

    with pytest.raises(CheckpointError) as error:
        get_model(damaged(folder, tmp_path, damage))
    header, *lines = str(error.value).splitlines()
    assert header.endswith("model.safetensors does not fit test_resnet:")
    assert sorted(line.strip() for line in lines) == [
        "bn1.weight: missing, expected shape (32,)",
        "bn9.weight: unexpected, shape (4,)",
        "fc.bias: found int64 numbers, expected floating-point ones",
        "layer1.0.bn1.bias: found shape (1,), expected (32,)",
        "layer1.0.conv1.weight: found shape (2, 3, 3, 3), expected (32, 32, 3, 3)",
    ]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_fresh_classifier(saved, name):
    _, folder = saved(name)
    model, variables, _ = get_model(f"local-dir:{folder}", n_classes=10, prng=jax.random.key(3))
    _, published, _ = get_model(f"local-dir:{folder}")
    drawn = core.flatten(model.init(jax.random.key(3)))
    published = core.flatten(published)
    for path, leaf in core.flatten(variables).items():
        expected = drawn if path.startswith(f"params/{model.classifier}/") else published
        assert np.array_equal(leaf, expected[path]), path


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_vit4", "test_convnext"])
def test_without_a_classifier(saved, name):
    _, folder = saved(name)
    published = core.flatten(get_model(f"local-dir:{folder}")[1])
    model, variables, _ = get_model(f"local-dir:{folder}", n_classes=-1)
    assert_same_weights(model, variables, timm_from(folder, num_classes=0))
    model, variables, _ = get_model(f"local-dir:{folder}", n_classes=0)
    assert all(np.array_equal(leaf, published[path]) for path, leaf in core.flatten(variables).items())


def test_only_the_head_may_be_left_out(saved, tmp_path):
    _, folder = saved("test_resnet")
    source = damaged(folder, tmp_path, lambda tensors: tensors.update({"neck.weight": np.zeros(3, np.float32)}))
    with pytest.raises(CheckpointError, match=r"neck\.weight: unexpected"):
        get_model(source, n_classes=-1)


def test_checkpoint_without_classes(saved):
    """A file that ends before the classifier: features by default, a fresh classifier where classes are asked for."""
    reference, folder = saved("test_vit", num_classes=0)
    model, variables, _ = get_model(f"local-dir:{folder}")
    assert model.n_classes == -1
    assert_same_weights(model, variables, reference)
    model, variables, _ = get_model(f"local-dir:{folder}", n_classes=5)
    assert variables["params"]["head"]["kernel"].shape[-1] == 5


def test_convnext_without_a_final_norm(saved, tmp_path):
    """ConvNeXt V2's masked autoencoders come without head and final norm; timm leaves the norm as initialised."""
    _, folder = saved("test_convnext", num_classes=0)
    norm = ("head.norm.weight", "head.norm.bias")
    source = damaged(folder, tmp_path, lambda tensors: [tensors.pop(name) for name in norm])
    model, variables, _ = get_model(source)
    assert model.n_classes == -1
    assert np.all(np.asarray(variables["params"]["head"]["norm"]["scale"]) == 1)
    assert "norm" not in get_model(source, n_classes=0)[1]["params"].get("head", {})


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_image_channels(saved, name, channels):
    _, folder = saved(name)
    model, variables, norm_stats = get_model(f"local-dir:{folder}", in_channels=channels)
    assert len(norm_stats["mean"]) == len(norm_stats["std"]) == channels
    assert_same_weights(model, variables, timm_from(folder, in_chans=channels))


TOWER = {"embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize("size", [(192, 192), (96, 160)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {}),  # with a class token
        ("test_vit2", {}),  # with registers beside it, and embeddings for all of them
        ("test_vit3", {}),  # with prefix tokens that have no embeddings
        ("flexivit_small", TOWER),  # bilinear
        ("vit_base_patch16_radio_v3", TOWER),  # bilinear, corner to corner
    ],
)
def test_input_size_of_position_embeddings(saved, name, options, size):
    _, folder = saved(name, **options)
    model, variables, _ = get_model(f"local-dir:{folder}", input_size=size)
    assert model.input_size == size
    assert_same_weights(model, variables, timm_from(folder, img_size=size))


def test_input_size_of_the_same_number_of_patches(saved):
    _, folder = saved("test_vit", img_size=(64, 144))
    model, variables, _ = get_model(f"local-dir:{folder}")
    assert model.input_size == (64, 144)
    model, variables, _ = get_model(f"local-dir:{folder}", input_size=(96, 96))
    assert_same_weights(model, variables, timm_from(folder, img_size=(96, 96)))


# At 192 the window of Swin's last stage shrinks with its map; at 160x224 it is no square any more.
@pytest.mark.parametrize("size", [(192, 192), (160, 224), (256, 192)])
def test_input_size_of_windows(saved, size):
    _, folder = saved("swin_tiny_patch4_window7_224", **SWIN)
    model, variables, _ = get_model(f"local-dir:{folder}", input_size=size)
    assert_same_weights(model, variables, timm_from(folder, img_size=size))


@pytest.mark.parametrize("size", [(192, 192), (128, 192)])
@pytest.mark.parametrize("name", ["test_maxvit", "test_coatnet"])
def test_input_size_of_hybrids(saved, name, size):
    _, folder = saved(name)
    model, variables, _ = get_model(f"local-dir:{folder}", input_size=size)
    assert_same_weights(model, variables, timm_from(folder, img_size=size))


def test_input_size_of_a_table_of_planes():
    """The paper's MaxViT has its tables as planes, a head each."""
    shallow = {"depths": (1, 1, 1, 1)}
    reference = oracle.create("maxvit_tiny_tf_224", img_size=128, **shallow)
    larger = timm.create_model("maxvit_tiny_tf_224", img_size=(128, 192), **shallow)
    larger.load_state_dict(timm.models.maxxvit.checkpoint_filter_fn(reference.state_dict(), larger))
    model = flaim.models.create("maxvit_tiny_tf_224", input_size=(128, 192), **shallow)
    config = CheckpointInfo(
        family="maxvit", architecture=model.name, preprocessing=Preprocessing(input_size=(128, 128))
    )
    variables = assign(model, oracle.state(reference), config, key=jax.random.key(0))
    assert_same_weights(model, variables, larger)


def test_input_size_that_does_not_divide(saved):
    _, folder = saved("test_vit")
    with pytest.raises(ValueError, match="patch"):
        get_model(f"local-dir:{folder}", input_size=165)


# Random variables


def test_random_variables():
    model, variables, norm_stats = get_model("test_vit", pretrained=False, n_classes=3, prng=5)
    assert norm_stats == {}
    chex.assert_trees_all_equal(variables, model.init(jax.random.key(5)), strict=True)
    _, others, _ = get_model("test_vit", pretrained=False, n_classes=3, prng=jax.random.key(5), jit=False)
    for path, leaf in core.flatten(variables).items():
        np.testing.assert_allclose(leaf, core.flatten(others)[path], rtol=1e-6, atol=1e-7)
    assert get_model("test_resnet", pretrained=False, dtype=jnp.bfloat16)[0].dtype == "bfloat16"
