"""The names that Keras has had for the same layers over the years, and files that are of no model."""

from pathlib import Path

import jax
import keras
import numpy as np
import pytest

import flaim_core as core
from flaim.pretrained import model_of
from flaim.weights import CheckpointError, formats, load
from flaim.weights.assign import assign
from flaim.weights.converters import keras as converter
from tests.weights.converters import keras_oracle as oracle
from tests.weights.converters.keras_cases import CASES, only

pytestmark = pytest.mark.usefixtures("lenient")  # Keras promotes


def variables_of(tensors: dict) -> dict[str, np.ndarray]:
    """What flaim makes of a lone file's tensors, by path."""
    config = converter.describe(tensors, {}, "the file").replace(converter="keras")
    model = model_of(config)
    return core.flatten(assign(model, tensors, config, key=jax.random.key(0)))


def saved(name: str, folder: Path, **options) -> tuple[keras.Model, dict]:
    """A small model of Keras', and the tensors in its file of the older kind."""
    reference = oracle.build(CASES[name].build, **{"size": CASES[name].size, **options})
    return reference, formats.read(oracle.save(reference, folder)[".h5"])


def renamed(tensors: dict, rename) -> dict:
    """The tensors with other names of their layers."""
    new = {}
    for path, tensor in tensors.items():
        *layers, weight = path.split("/")
        new["/".join([*map(rename, layers), weight])] = tensor
    assert new.keys() != tensors.keys()
    return new


def assert_same(tensors: dict, others: dict) -> None:
    expected, found = variables_of(tensors), variables_of(others)
    assert all(np.array_equal(found[path], value) for path, value in expected.items())


def test_vgg_of_another_size_says_so(tmp_path):
    _, tensors = saved("vgg", tmp_path, size=64)
    config = converter.describe(tensors, {}, "the file")
    assert (config.architecture, config.input_size, dict(config.overrides)) == (
        "vgg16",
        (64, 64),
        {"head_kernel_size": 2},
    )
    path = next(path for path in tensors if path.endswith("fc2/kernel"))
    tensors[path] = np.asarray(tensors[path])[:, :-1]
    with pytest.raises(CheckpointError, match=r"params/pre_logits/fc2/kernel: found shape .*4095"):
        variables_of(tensors)


def test_a_model_that_flaim_lacks_is_named_by_its_nearest(tmp_path):
    with only(CASES["resnet"]):
        _, tensors = saved("resnet", tmp_path)
        del tensors[next(path for path in tensors if path.endswith("conv2_block1_0_conv/kernel"))]
        del tensors[next(path for path in tensors if path.endswith("conv2_block1_0_conv/bias"))]
        extra = {"mine/mine/kernel": np.zeros((1, 1, 2, 2), np.float32)}
        with pytest.raises(CheckpointError, match=r"(?s)most like resnet50.*conv2_block1_0_conv: missing.*mine: unexp"):
            converter.describe(tensors | extra, {}, "the file")


def older(name: str) -> str:
    """The name that older versions of Keras gave to a layer of MobileNetV3."""
    name = name.replace("_bn", "/BatchNorm").replace("squeeze_excite_conv", "squeeze_excite/Conv")
    for layer in ("expand", "depthwise", "project", "squeeze_excite"):
        name = name.replace(f"_{layer}", f"/{layer}", 1) if name.startswith("expanded_conv") else name
    return name.replace("conv", "Conv", 1).replace("logits", "Logits") if not name.startswith("expanded") else name


def test_older_names_of_mobilenetv3(tmp_path):
    reference, tensors = saved("mobilenet_v3_small", tmp_path)
    layers = {layer.name: older(layer.name) for layer in reference.layers if layer.weights}
    assert layers["expanded_conv_3_squeeze_excite_conv_1"] == "expanded_conv_3/squeeze_excite/Conv_1"
    assert layers["conv_1_bn"] == "Conv_1/BatchNorm"
    assert_same(tensors, renamed(tensors, layers.__getitem__))


def test_made_up_names_of_a_later_model_and_of_the_first_keras(tmp_path):
    classes = {"conv2d": "convolution2d", "batch_normalization": "batchnormalization"}

    def rename(layer: str) -> str:
        name, _, number = layer.rpartition("_") if layer[-1].isdigit() else (layer, "", "0")
        return f"{classes[name]}_{int(number) + 9}" if name in classes else layer

    with only(CASES["xception"]):
        _, tensors = saved("xception", tmp_path)
        assert_same(tensors, renamed(tensors, rename))


def test_a_classifier_with_a_name_of_its_own(tmp_path):
    """As in a model made of another one's layers, which Keras saves as one file."""
    with only(CASES["resnet"]):
        _, tensors = saved("resnet", tmp_path)
        assert_same(tensors, renamed(tensors, lambda layer: "my_classes" if layer == "predictions" else layer))


def test_files_with_an_optimizer(tmp_path):
    """Training leaves its own state in a `.keras` file; the model is what counts."""
    reference = oracle.build(CASES["resnet"].build, size=32)
    reference.compile("adam", "mse")
    reference.optimizer.build(reference.trainable_variables)
    reference.save(tmp_path / "trained.keras")
    names = formats.read(tmp_path / "trained.keras")
    assert any("optimizer" in name for name in names)
    with only(CASES["resnet"]):
        leaves = core.flatten(load(tmp_path / "trained.keras").variables)
    assert np.array_equal(leaves["params/fc/kernel"], reference.get_layer("predictions").kernel)
