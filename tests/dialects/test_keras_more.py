"""The rest of `keras.applications` against Keras on JAX, one small model of each family.

What they have that others lack: heads of their own, models in the model, older names, files without the top.
"""

from functools import partial

import jax
import keras
import numpy as np
import pytest

import flaim_core as core
from flaim.models import efficientnet
from flaim.weights import CheckpointError
from flaim.weights import keras as dialect
from tests import keras_oracle as oracle
from tests.dialects.test_keras import Shallow, converted, only, read  # noqa: F401
from tests.oracle import relative_error

APPLICATIONS = keras.applications


def _convnext(**options) -> keras.Model:
    from keras.src.applications import convnext

    return convnext.ConvNeXt([1, 2, 1, 1], [8, 16, 24, 32], name="convnext_tiny", **options)


def _efficientnetv2(name: str, **options) -> keras.Model:
    from keras.src.applications import efficientnet_v2

    return efficientnet_v2.EfficientNetV2(1.0, 0.3, 64, name=name, **options)


def _nasnet(skip_reduction: bool, **options) -> keras.Model:
    from keras.src.applications import nasnet

    return nasnet.NASNet(
        penultimate_filters=384, num_blocks=2, stem_block_filters=8, skip_reduction=skip_reduction, **options
    )


_NASNET = {"depth": 2, "features": 384, "stem_features": 8}
SHALLOW = {
    "convnext": Shallow(
        _convnext,
        "convnext",
        dialect.convnext.TABLE,
        (1, 2, 1, 1),
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
        "convnext_tiny",
    ),
    "efficientnetv2_b": Shallow(
        partial(_efficientnetv2, "efficientnetv2-b0"),
        "efficientnet_v2",
        dialect.efficientnetv2.BASE,
        (1, 1, 1, 1, 2, 3),
        {"stages": efficientnet._scale(efficientnet._V2_BASE, 1.0, 0.3)},
        "efficientnetv2-b0",
    ),
    "efficientnetv2_s": Shallow(
        partial(_efficientnetv2, "efficientnetv2-s"),
        "efficientnet_v2",
        dialect.efficientnetv2.LARGE,
        (1, 2, 2, 2, 3, 5),
        {"stages": efficientnet._scale(efficientnet._V2_S, 1.0, 0.3)},
        "efficientnetv2-s",
    ),
    "inception_resnet_v2": Shallow(
        APPLICATIONS.InceptionResNetV2,
        "inception_resnet_v2",
        dialect.inception_resnet_v2.TABLE,
        (),
        {},
        "inception_resnet_v2",
        size=75,
    ),
    "mobilenet": Shallow(
        partial(APPLICATIONS.MobileNet, alpha=0.25),
        "mobilenet",
        dialect.mobilenet.MOBILENET,
        (),
        {},
        "mobilenet_0.25",
        size=72,  # 36, 18, 9: a side that is odd before it is halved
    ),
    "mobilenetv3_small": Shallow(
        partial(APPLICATIONS.MobileNetV3Small, alpha=0.75),
        "mobilenet_v3",
        dialect.mobilenet.MOBILENET_V3,
        (dialect.mobilenet._SMALL, dialect.mobilenet._SMALL_GATED),
        {},
        "mobilenetv3_small_0.75",
    ),
    "mobilenetv3_large_minimalistic": Shallow(
        partial(APPLICATIONS.MobileNetV3Large, minimalistic=True),
        "mobilenet_v3",
        dialect.mobilenet.MOBILENET_V3,
        (dialect.mobilenet._LARGE, ()),
        {},
        "mobilenetv3_large_minimalistic",
        size=72,
    ),
    "nasnet_mobile": Shallow(
        partial(_nasnet, False),
        "nasnet",
        dialect.nasnet.TABLE,
        (2,),
        _NASNET,
        "nasnet_mobile",
        size=48,
        tolerance=2e-5,
    ),
    "nasnet_large": Shallow(
        partial(_nasnet, True),
        "nasnet",
        dialect.nasnet.TABLE,
        (2,),
        _NASNET,
        "nasnet_large",
        size=65,
        tolerance=2e-5,
    ),
    "vgg": Shallow(APPLICATIONS.VGG16, "vgg16", dialect.vgg.TABLE, ((2, 2, 3, 3, 3),), {}, "vgg16", size=64),
    "xception": Shallow(APPLICATIONS.Xception, "xception", dialect.xception.TABLE, (), {}, "xception", size=71),
}


@pytest.mark.parametrize("family", SHALLOW)
def test_logits_are_keras_from_every_kind_of_file(family, only, tmp_path):  # noqa: F811
    case = SHALLOW[family]
    if case.overrides:  # the others are whole: their file has to be told from every other model's
        only(case)
    reference = oracle.build(case.build, size=case.size)
    files = oracle.save(reference, tmp_path)
    model, variables, config = converted(read(files[".h5"]))
    flat = core.flatten(variables)
    for kind in (".weights.h5", ".keras"):
        again = core.flatten(converted(read(files[kind]))[1])
        assert all(np.array_equal(again[path], value) for path, value in flat.items()), kind

    assert config.architecture == case.table.models[case.like].architecture and config.n_classes == 7
    pixels = oracle.pixels(case.size)
    images = (pixels / 255 - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images.astype(np.float32))
    error = relative_error(found, oracle.run(reference, case.module, pixels))
    assert error < case.tolerance, f"relative error {error:.2e}"


# Keras' model without its top: how it ends, flaim's `n_classes`.
NOTOP = {
    "convnext": ({"pooling": "avg"}, -1),  # a norm follows
    "mobilenet": ({"pooling": "avg"}, -1),
    "mobilenetv3_small": ({}, 0),
    "vgg": ({}, 0),
}


@pytest.mark.parametrize("family", NOTOP)
def test_files_without_the_top(family, only, tmp_path):  # noqa: F811
    case, (options, n_classes) = SHALLOW[family], NOTOP[family]
    if case.overrides:
        only(case)
    reference = oracle.build(partial(case.build, include_top=False, **options), size=case.size)
    pixels = oracle.pixels(case.size)
    expected = oracle.run(reference, case.module, pixels)
    for kind, path in oracle.save(reference, tmp_path).items():
        model, variables, config = converted(read(path))
        assert (config.n_classes, model.n_classes) == (n_classes, n_classes), kind
    images = (pixels / 255 - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images.astype(np.float32))
    assert relative_error(found, expected) < case.tolerance


def test_vgg_of_another_size_says_so(tmp_path):
    reference = oracle.build(APPLICATIONS.VGG19, size=32)
    tensors = read(oracle.save(reference, tmp_path)[".h5"])
    config = dialect.config_from(tensors, {}, "the file")
    assert (config.architecture, config.input_size, dict(config.overrides)) == (
        "vgg19",
        (32, 32),
        {"head_kernel_size": 1},
    )
    tensors["fc1/fc1/kernel"] = tensors["fc1/fc1/kernel"][:, :-1]
    with pytest.raises(CheckpointError, match=r"params/pre_logits/fc1/kernel: found shape .*4095"):
        converted(tensors)


def older(name: str) -> str:
    """The name that older versions of Keras gave to a layer of MobileNetV3."""
    name = name.replace("_bn", "/BatchNorm").replace("squeeze_excite_conv", "squeeze_excite/Conv")
    for layer in ("expand", "depthwise", "project", "squeeze_excite"):
        name = name.replace(f"_{layer}", f"/{layer}", 1) if name.startswith("expanded_conv") else name
    return name.replace("conv", "Conv", 1).replace("logits", "Logits") if not name.startswith("expanded") else name


def test_older_names_of_mobilenetv3(tmp_path):
    reference = oracle.build(SHALLOW["mobilenetv3_small"].build, size=32)
    tensors = read(oracle.save(reference, tmp_path)[".h5"])
    layers = {layer.name: older(layer.name) for layer in reference.layers if layer.weights}
    assert layers["expanded_conv_3_squeeze_excite_conv_1"] == "expanded_conv_3/squeeze_excite/Conv_1"
    assert layers["conv_1_bn"] == "Conv_1/BatchNorm"
    renamed = {}
    for name, tensor in tensors.items():
        *parents, weight = name.split("/")
        renamed["/".join([*(layers[parent] for parent in parents), weight])] = tensor
    assert renamed.keys() != tensors.keys()
    expected, found = (core.flatten(converted(each)[1]) for each in (tensors, renamed))
    assert all(np.array_equal(found[path], value) for path, value in expected.items())


def test_made_up_names_of_a_later_model_and_of_the_first_keras(tmp_path):
    keras.backend.clear_session()
    reference = oracle.build(APPLICATIONS.Xception, size=71)
    tensors = read(oracle.save(reference, tmp_path)[".h5"])
    shifted = {}
    for name, tensor in tensors.items():
        *parents, weight = name.split("/")
        for i, parent in enumerate(parents):
            for made_up, old in (("conv2d", "convolution2d"), ("batch_normalization", "batchnormalization")):
                if parent == made_up or parent.startswith(f"{made_up}_"):
                    parents[i] = f"{old}_{int(parent.removeprefix(made_up).removeprefix('_') or 0) + 9}"
        shifted["/".join([*parents, weight])] = tensor
    assert shifted.keys() != tensors.keys()
    expected, found = (core.flatten(converted(each)[1]) for each in (tensors, shifted))
    assert all(np.array_equal(found[path], value) for path, value in expected.items())
