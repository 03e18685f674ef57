"""Small models of every family of `keras.applications`: the whole of a graph at few layers, and what flaim calls it."""

import builtins
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import keras
from keras.src.applications import (
    convnext,
    densenet,
    efficientnet,
    efficientnet_v2,
    inception_resnet_v2,
    nasnet,
    resnet,
    xception,
)

from flaim.models.efficientnet import _stages
from flaim.weights.converters import keras as converter
from flaim.weights.converters.keras._table import Entry, Table
from flaim_core.layers.stacks import scale

APPLICATIONS = keras.applications


class Case(NamedTuple):
    """A small model.

    Attributes:
        build: Makes Keras' model, from `input_shape`, `classes`, `weights` and `classifier_activation`.
        module: Of `keras.applications`, for its `preprocess_input`.
        table: Its family's.
        like: The model in the table whose options it has.
        args: What the table's `names` takes for so few layers; None where nothing was left out.
        overrides: flaim's options for so few layers.
        size: Side of the images.
        tolerance: Of the outputs, relative to the largest.
    """

    build: Callable[..., keras.Model]
    module: str
    table: Table
    like: str
    args: tuple | None = None
    overrides: Mapping[str, Any] = {}
    size: int = 32
    tolerance: float = 1e-5


@contextmanager
def only(case: Case) -> Iterator[None]:
    """Leave one model in flaim's tables, that of the case; where nothing was left out of it, leave all as they are."""
    if case.args is None:
        yield
        return
    like = case.table.models[case.like]
    entry = Entry(like.architecture, case.args, {**like.overrides, **case.overrides}, case.size)
    converter._entries.cache_clear()
    try:
        with mock.patch.object(converter, "TABLES", (case.table._replace(models={case.like: entry}),)):
            yield
    finally:
        converter._entries.cache_clear()


def _resnet(**options) -> keras.Model:
    def stack(x):
        for stage, depth in enumerate((2, 1), 2):
            x = resnet.stack_residual_blocks_v1(x, 32, depth, stride1=1 if stage == 2 else 2, name=f"conv{stage}")
        return x

    return resnet.ResNet(stack, preact=False, use_bias=True, **options)


def _resnetv2(**options) -> keras.Model:
    def stack(x):
        for stage, (depth, stride) in enumerate(((2, 2), (2, 1)), 2):
            x = resnet.stack_residual_blocks_v2(x, 32, depth, stride1=stride, name=f"conv{stage}")
        return x

    return resnet.ResNet(stack, preact=True, use_bias=True, **options)


def _without_repetition(module: Any, model: str, **options) -> keras.Model:
    """One block where Keras' function has a loop over equal ones."""
    with mock.patch.object(module, "range", lambda *bounds: builtins.range(*bounds)[:1], create=True):
        return getattr(module, model)(**options)


def _nasnet(skip_reduction: bool, **options) -> keras.Model:
    options = {"penultimate_filters": 192, "num_blocks": 2, "stem_block_filters": 8, **options}
    return nasnet.NASNet(skip_reduction=skip_reduction, **options)


def _scaled(stages, depth: float) -> dict[str, Any]:
    return {"stages": scale(stages, 1.0, depth)}


_NASNET = {"depth": 2, "features": 192, "stem_features": 8}
_SMALL, _LARGE = converter.mobilenet._SMALL, converter.mobilenet._LARGE

CASES = {
    "convnext": Case(
        partial(convnext.ConvNeXt, [1, 2, 1, 1], [8, 16, 24, 32], name="convnext_tiny"),
        "convnext",
        converter.convnext.TABLE,
        "convnext_tiny",
        (1, 2, 1, 1),
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)},
    ),
    "densenet": Case(
        partial(densenet.DenseNet, [1, 2, 1, 1]),
        "densenet",
        converter.densenet.TABLE,
        "densenet121",
        ((1, 2, 1, 1),),
        {"depths": (1, 2, 1, 1)},
    ),
    "efficientnet": Case(
        partial(efficientnet.EfficientNet, 1.0, 0.3, 64),
        "efficientnet",
        converter.efficientnet.EFFICIENTNET,
        "efficientnetb0",
        (0.3,),
        _scaled(_stages.EFFICIENTNET_B0, 0.3),
    ),
    "efficientnetv2_b": Case(
        partial(efficientnet_v2.EfficientNetV2, 1.0, 0.2, 64, name="efficientnetv2-b0"),
        "efficientnet_v2",
        converter.efficientnetv2.BASE,
        "efficientnetv2-b0",
        (1, 1, 1, 1, 1, 2),
        _scaled(_stages.EFFICIENTNET_V2_BASE, 0.2),
    ),
    "efficientnetv2_s": Case(
        partial(efficientnet_v2.EfficientNetV2, 1.0, 0.15, 64, name="efficientnetv2-s"),
        "efficientnet_v2",
        converter.efficientnetv2.LARGE,
        "efficientnetv2-s",
        (1, 1, 1, 1, 2, 3),
        _scaled(_stages.EFFICIENTNET_V2_S, 0.15),
    ),
    "inception_resnet_v2": Case(
        partial(_without_repetition, inception_resnet_v2, "InceptionResNetV2"),
        "inception_resnet_v2",
        converter.inception_resnet_v2.TABLE,
        "inception_resnet_v2",
        (1, 1, 1),
        {"depths": (1, 1, 1)},
        size=75,
    ),
    "inception_v3": Case(
        APPLICATIONS.InceptionV3, "inception_v3", converter.inception_v3.TABLE, "inception_v3", size=75
    ),
    "mobilenet": Case(
        partial(APPLICATIONS.MobileNet, alpha=0.25, depth_multiplier=2),
        "mobilenet",
        converter.mobilenet.MOBILENET,
        "mobilenet_0.25",
        size=40,  # 20, 10, 5: a side that is odd before it is halved
    ),
    "mobilenet_v2": Case(
        partial(APPLICATIONS.MobileNetV2, alpha=0.35),
        "mobilenet_v2",
        converter.efficientnet.MOBILENET_V2,
        "mobilenetv2_0.35",
    ),
    "mobilenet_v3_small": Case(
        partial(APPLICATIONS.MobileNetV3Small, alpha=0.75),
        "mobilenet_v3",
        converter.mobilenet.MOBILENET_V3,
        "mobilenetv3_small_0.75",
    ),
    "mobilenet_v3_large_minimalistic": Case(
        partial(APPLICATIONS.MobileNetV3Large, minimalistic=True),
        "mobilenet_v3",
        converter.mobilenet.MOBILENET_V3,
        "mobilenetv3_large_minimalistic",
        size=40,
    ),
    "nasnet_mobile": Case(
        partial(_nasnet, False),
        "nasnet",
        converter.nasnet.TABLE,
        "nasnet_mobile",
        (2,),
        _NASNET,
        tolerance=2e-5,
    ),
    "nasnet_large": Case(
        partial(_nasnet, True),
        "nasnet",
        converter.nasnet.TABLE,
        "nasnet_large",
        (2,),
        _NASNET,
        size=49,
        tolerance=2e-5,
    ),
    "resnet": Case(
        _resnet,
        "resnet",
        converter.resnet.TABLE,
        "resnet50",
        ((2, 1),),
        {"depths": (2, 1), "widths": (32, 32)},
    ),
    "resnetv2": Case(
        _resnetv2,
        "resnet_v2",
        converter.resnetv2.TABLE,
        "resnet50v2",
        ((2, 2),),
        {"depths": (2, 2), "widths": (128, 128), "strides": (2, 1)},
    ),
    "vgg": Case(APPLICATIONS.VGG16, "vgg16", converter.vgg.TABLE, "vgg16"),
    "xception": Case(
        partial(_without_repetition, xception, "Xception"),
        "xception",
        converter.xception.TABLE,
        "xception",
        (1,),
        {"middle_depth": 1},
        size=71,
    ),
}
# TensorFlow's Keras has it, Keras no more; `tools/make_resnet_rs_reference.py` builds the same.
RESNET_RS = Case(
    None, "", converter.resnet_rs.TABLE, "resnet-rs-50", ((2, 1),), {"depths": (2, 1), "widths": (32, 32)}, size=64
)
