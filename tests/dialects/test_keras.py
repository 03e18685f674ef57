"""Keras' checkpoints against Keras on JAX: the same weights, the same pixels, the same numbers.

A family is a line in `SHALLOW`, the whole of a graph at few layers, and each of its models one in `MODELS`, whose
layers and shapes at their real size are compared with what `tools/make_keras_structure.py` has recorded of Keras.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
import pytest

import flaim_core as core
from flaim.models import Model, efficientnet
from flaim.weights import Config, load
from flaim.weights import keras as dialect
from flaim.weights.keras._files import roles_of
from flaim.weights.keras._table import Entry
from flaim.weights.placement import lay_out, place
from flaim.weights.pretrained import model_of
from tests import keras_oracle as oracle
from tests.oracle import relative_error

DATA = Path(__file__).parent.parent / "data"
RESNET_RS = json.loads((DATA / "keras_resnet_rs.json").read_text())
STRUCTURE = json.loads((DATA / "keras_structure.json").read_text()) | RESNET_RS["structure"]


class Shallow(NamedTuple):
    """A Keras model of few layers.

    Attributes:
        build: Makes it, from `input_shape`, `classes`, `weights` and `classifier_activation`.
        module: Of `keras.applications`, for its `preprocess_input`.
        table: Its family's.
        args: What the table's `names` takes for so few layers.
        overrides: flaim's options for so few layers.
        like: The model in the table whose other options it has.
    """

    build: Callable[..., keras.Model]
    module: str
    table: dialect.Table
    args: tuple
    overrides: dict[str, Any]
    like: str
    size: int = 64
    tolerance: float = 1e-5


def _resnet(**options) -> keras.Model:
    from keras.src.applications import resnet

    def stack(x):
        for stage, depth in enumerate((2, 1, 2), 2):
            x = resnet.stack_residual_blocks_v1(x, 32, depth, stride1=1 if stage == 2 else 2, name=f"conv{stage}")
        return x

    return resnet.ResNet(stack, preact=False, use_bias=True, **options)


def _densenet(**options) -> keras.Model:
    from keras.src.applications import densenet

    return densenet.DenseNet([1, 2, 1, 1], **options)


def _resnetv2(**options) -> keras.Model:
    from keras.src.applications import resnet

    def stack(x):
        for stage, (depth, stride) in enumerate(((2, 2), (3, 1)), 2):
            x = resnet.stack_residual_blocks_v2(x, 32, depth, stride1=stride, name=f"conv{stage}")
        return x

    return resnet.ResNet(stack, preact=True, use_bias=True, **options)


def _efficientnet(**options) -> keras.Model:
    from keras.src.applications import efficientnet

    return efficientnet.EfficientNet(1.0, 0.4, 64, **options)


SHALLOW = {
    "densenet": Shallow(
        _densenet, "densenet", dialect.densenet.TABLE, ((1, 2, 1, 1),), {"depths": (1, 2, 1, 1)}, "densenet121"
    ),
    "efficientnet": Shallow(
        _efficientnet,
        "efficientnet",
        dialect.efficientnet.EFFICIENTNET,
        (0.4,),
        {"stages": efficientnet._scale(efficientnet._B0, 1.0, 0.4)},
        "efficientnetb0",
    ),
    "inception_v3": Shallow(
        keras.applications.InceptionV3,
        "inception_v3",
        dialect.inception_v3.TABLE,
        (),
        {},
        "inception_v3",
        size=80,
    ),
    "mobilenet_v2": Shallow(
        partial(keras.applications.MobileNetV2, alpha=1.3),
        "mobilenet_v2",
        dialect.efficientnet.MOBILENET_V2,
        (),
        {},
        "mobilenetv2_1.30",
    ),
    "resnet": Shallow(
        _resnet,
        "resnet",
        dialect.resnet.TABLE,
        ((2, 1, 2),),
        {"depths": (2, 1, 2), "widths": (32, 32, 32)},
        "resnet50",
    ),
    "resnetv2": Shallow(
        _resnetv2,
        "resnet_v2",
        dialect.resnetv2.TABLE,
        ((2, 3),),
        {"depths": (2, 3), "widths": (128, 128), "strides": (2, 1)},
        "resnet50v2",
    ),
}


@pytest.fixture
def only(monkeypatch):
    """A function that leaves one model in the tables: a family's, of few layers."""

    def leave(case: Shallow) -> None:
        like = case.table.models[case.like]
        entry = Entry(like.architecture, case.args, {**like.overrides, **case.overrides}, case.size)
        monkeypatch.setattr(dialect, "TABLES", (case.table._replace(models={"shallow": entry}),))
        dialect._entries.cache_clear()

    yield leave
    monkeypatch.undo()
    dialect._entries.cache_clear()


def logits(model: Model, variables: dict, config: Config, pixels: np.ndarray) -> np.ndarray:
    """flaim's output for pixels from 0 to 255, normalised as the configuration says."""
    images = (pixels / np.float32(255) - np.array(config.mean, np.float32)) / np.array(config.std, np.float32)
    return jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)


@pytest.mark.parametrize("family", SHALLOW)
def test_logits_are_keras_from_every_kind_of_file(family, only, tmp_path):
    case = SHALLOW[family]
    only(case)
    reference = oracle.build(case.build, size=case.size)
    files = oracle.save(reference, tmp_path)
    variables, config = load(files[".h5"])
    flat = core.flatten(variables)
    for kind in (".weights.h5", ".keras"):
        again, same = load(files[kind])
        assert same.replace(path=None) == config.replace(path=None)
        assert all(np.array_equal(value, flat[path]) for path, value in core.flatten(again).items()), kind

    pixels = oracle.pixels(case.size)
    found = logits(model_of(config), variables, config, pixels)
    error = relative_error(found, oracle.run(reference, case.module, pixels))
    assert error < case.tolerance, f"relative error {error:.2e}"


RESNET_RS_OF_THREE_BLOCKS = Shallow(
    None, "", dialect.resnet_rs.TABLE, ((2, 1),), {"depths": (2, 1), "widths": (16, 32)}, "resnet-rs-50"
)


@pytest.mark.parametrize("file", RESNET_RS["files"])
def test_resnet_rs_is_tensorflow_keras(file, only):
    """Names and outputs are recorded, `tools/make_resnet_rs_reference.py`; the weights are drawn anew."""
    case = RESNET_RS_OF_THREE_BLOCKS
    only(case)
    (table,) = dialect.TABLES
    config = Config(family="resnet", architecture="resnetrs50", overrides=case.overrides)
    leaves = core.flatten(model_of(config, 7, 64).spec())
    tensors = {}
    for path, weight in RESNET_RS["files"][file].items():
        layer, _, role = weight.partition("/")
        where = dialect._places(table, table.path(layer), table.kind(layer), (role,))[role]
        tensors[path] = oracle.drawn(weight, oracle.comparable(table.kind(layer), role, leaves[where].shape))
    assert dialect.recognises(tensors)
    config = dialect.config_from(tensors, {}, "the file").replace(dialect="keras")
    model = model_of(config)
    variables = place(model, tensors, config, key=jax.random.key(0))
    found = logits(model, variables, config, oracle.pixels(64))
    assert relative_error(found, RESNET_RS["logits"]["shallow"]) < 1e-5


def _lines(table: dialect.Table, name: str) -> list[str]:
    """The layers and shapes that a model's table and flaim's model promise, as `keras_oracle.structure` has them."""
    entry = table.models[name]
    config = Config(family=table.family, architecture=entry.architecture, overrides=entry.overrides)
    leaves = core.flatten(model_of(config, input_size=entry.input_size).spec())
    lines = []
    for layer, path in table.layers(name).items():
        if path:
            kind = table.kind(layer)
            places = dialect._places(table, path, kind, roles_of(kind))
            shapes = {
                role: oracle.comparable(kind, role, leaves[place].shape)
                for role, place in places.items()
                if place in leaves
            }
            lines.append(f"{layer} {kind} " + " ".join(f"{role}{shapes[role]}" for role in sorted(shapes)))
    return lines


MODELS = [(table, name) for table in dialect.TABLES for name in table.models]


@pytest.mark.parametrize("table, name", MODELS, ids=[name for _, name in MODELS])
def test_layers_and_shapes_are_keras(table, name):
    lines = _lines(table, name)
    assert [len(lines), zlib.crc32("\n".join(lines).encode())] == STRUCTURE[name]


def test_every_recorded_model_is_in_a_table():
    assert set(STRUCTURE) == {name for _, name in MODELS}


def _tensors(table: dialect.Table, name: str) -> tuple[dict, dict, dict]:
    """A model's leaves, and its tensors under the names of the older files and of Keras 3's; all numbers are zero."""
    entry = table.models[name]
    config = Config(family=table.family, architecture=entry.architecture, overrides=entry.overrides)
    leaves = core.flatten(model_of(config, 5, entry.input_size).spec())
    older, newer, counts = {}, {}, Counter()
    for layer, path in table.layers(name).items():
        if path:
            kind = table.kind(layer)
            place = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
            places = dialect._places(table, path, kind, roles_of(kind))
            present = [role for role in roles_of(kind) if places[role] in leaves]
            for number, role in enumerate(present):
                shape = oracle.comparable(kind, role, leaves[places[role]].shape)
                if role == "depthwise_kernel":
                    shape = (*shape[:2], shape[3], 1)
                zeros = np.broadcast_to(np.float32(0), shape)
                older[f"{layer}/{layer}/{role}:0"] = newer[f"layers/{place}/vars/{number}"] = zeros
    return leaves, older, newer


@pytest.mark.parametrize("table, name", MODELS, ids=[name for _, name in MODELS])
def test_a_file_says_which_model_it_is_of(table, name):
    leaves, *files = _tensors(table, name)
    for tensors in files:
        config = dialect.config_from(tensors, {}, "the file")
        assert (config.architecture, config.n_classes) == (table.models[name].architecture, 5)
        model = model_of(config.replace(dialect="keras"))
        found, fresh = lay_out(model, tensors, config.replace(dialect="keras"))
        assert {path: value.shape for path, value in found.items()} == {p: leaf.shape for p, leaf in leaves.items()}
        assert not fresh
