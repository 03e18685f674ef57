"""Keras' checkpoints against Keras on JAX: the same weights, the same pixels, the same numbers.

`tests/keras_cases.py` has a small model of every family; all models' layers and shapes at their real size are compared
with what `tools/make_keras_structure.py` has recorded of Keras.
"""

import json
import zlib
from collections import Counter
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import flaim_core as core
from flaim.models import Model
from flaim.pretrained import model_of
from flaim.weights import CheckpointInfo, load
from flaim.weights.assign import assign, lay_out
from flaim.weights.converters import keras as converter
from flaim.weights.converters.keras._files import roles_of
from tests.oracle import relative_error
from tests.weights.converters import keras_oracle as oracle
from tests.weights.converters.keras_cases import CASES, RESNET_RS, only

pytestmark = pytest.mark.usefixtures("lenient")  # Keras promotes

DATA = Path(__file__).parents[2] / "data"
RECORDED = json.loads((DATA / "keras_resnet_rs.json").read_text())
STRUCTURE = json.loads((DATA / "keras_structure.json").read_text()) | RECORDED["structure"]


def output(model: Model, variables: dict, config: CheckpointInfo, pixels: np.ndarray) -> np.ndarray:
    """flaim's output for pixels from 0 to 255, normalised as the configuration says."""
    images = (pixels / np.float32(255) - np.array(config.preprocessing.mean, np.float32)) / np.array(
        config.preprocessing.std, np.float32
    )
    return oracle.quickly(lambda v, x: model.apply(v, x).value, variables, images)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_keras_from_every_kind_of_file(name, tmp_path):
    case = CASES[name]
    reference = oracle.build(case.build, size=case.size)
    files = oracle.save(reference, tmp_path)
    with only(case):
        variables, config = load(files[".h5"])
        flat = core.flatten(variables)
        for kind in (".weights.h5", ".keras"):
            again, same = load(files[kind])
            assert same.replace(path=None, input_size=config.input_size) == config.replace(path=None), kind
            assert all(np.array_equal(value, flat[path]) for path, value in core.flatten(again).items()), kind
    assert same.input_size == (case.size, case.size)  # a `.keras` file says so
    assert (config.architecture, config.n_classes) == (case.table.models[case.like].architecture, 7)

    pixels = oracle.pixels(case.size)
    error = relative_error(
        output(model_of(config), variables, config, pixels), oracle.run(reference, case.module, pixels)
    )
    assert error < case.tolerance, f"relative error {error:.2e}"


# Keras' model without its top: how it ends, flaim's `n_classes`.
NOTOP = {
    "convnext": ({"pooling": "avg"}, -1),  # a norm follows
    "resnet": ({}, -1),
    "vgg": ({}, 0),
}


@pytest.mark.parametrize("name", NOTOP)
def test_files_without_the_top(name, tmp_path):
    case, (options, n_classes) = CASES[name], NOTOP[name]
    reference = oracle.build(partial(case.build, include_top=False, **options), size=case.size)
    pixels = oracle.pixels(case.size)
    with only(case):
        for kind, path in oracle.save(reference, tmp_path).items():
            variables, config = load(path)
            assert config.n_classes == n_classes, kind
    model = model_of(config, n_classes if options else 0)
    assert (
        relative_error(output(model, variables, config, pixels), oracle.run(reference, case.module, pixels))
        < case.tolerance
    )


def _resnet_rs(name: str, weights: dict[str, str], overrides: dict, classes: int = 1000) -> dict[str, np.ndarray]:
    """The tensors of a ResNet-RS, drawn as the reference's were; `weights` are "layer/weight" by their names."""
    table = RESNET_RS.table
    config = CheckpointInfo(family="resnet", architecture=table.models[name].architecture, overrides=overrides)
    leaves, paths = core.flatten(model_of(config, classes, 64).spec()), table.layers(name)
    tensors = {}
    for path, weight in weights.items():
        layer, _, role = weight.rpartition("/")
        where = converter._places(table, paths[layer], table.kind(layer), (role,))[role]
        tensors[path] = oracle.drawn(weight, oracle.comparable(table.kind(layer), role, leaves[where].shape))
    return tensors


def _recorded_error(tensors: dict[str, np.ndarray], name: str) -> float:
    """The relative error for a ResNet-RS of these tensors."""
    assert converter.recognises(tensors, {})
    config = converter.describe(tensors, {}, "the file").replace(converter="keras")
    model = model_of(config)
    variables = assign(model, tensors, config, key=jax.random.key(0))
    expected = np.array(RECORDED["logits"][name])
    return relative_error(output(model, variables, config, oracle.pixels(64))[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("file", RECORDED["files"])
def test_resnet_rs_is_tensorflow_keras(file):
    """Names and outputs are recorded, `tools/make_resnet_rs_reference.py`; the weights are drawn anew."""
    with only(RESNET_RS):
        tensors = _resnet_rs("resnet-rs-50", RECORDED["files"][file], RESNET_RS.overrides)
        assert _recorded_error(tensors, "shallow") < 1e-5


def test_whole_resnet_rs_is_tensorflow_keras():
    table = RESNET_RS.table
    weights = {}
    for layer in table.layers("resnet-rs-50"):
        gated, kind = "_se_se_" in layer or layer == "predictions", table.kind(layer)
        roles = roles_of(kind) if gated or kind != "conv2d" else ("kernel",)
        weights |= {f"{layer}/{layer}/{role}:0": f"{layer}/{role}" for role in roles}
    assert _recorded_error(_resnet_rs("resnet-rs-50", weights, {}), "resnet-rs-50") < 1e-5


MODELS = [(table, name) for table in converter.TABLES for name in table.models]


def _layers(table: converter.Table, name: str) -> tuple[dict[str, core.Leaf], list[tuple[str, str, dict[str, str]]]]:
    """A model's leaves, and name, class, and leaves by role of each layer that has some in flaim."""
    entry = table.models[name]
    config = CheckpointInfo(family=table.family, architecture=entry.architecture, overrides=entry.overrides)
    leaves, layers = core.flatten(model_of(config, input_size=entry.input_size).spec()), []
    for layer, path in table.layers(name).items():
        if path:
            kind = table.kind(layer)
            places = converter._places(table, path, kind, roles_of(kind))
            layers.append((layer, kind, {role: place for role, place in places.items() if place in leaves}))
    return leaves, layers


def _line(leaves: dict[str, core.Leaf], layer: str, kind: str, places: dict[str, str]) -> str:
    """A layer's name, class and shapes, as `keras_oracle.structure` has them."""
    shapes = {role: oracle.comparable(kind, role, leaves[place].shape) for role, place in places.items()}
    return f"{layer} {kind} " + " ".join(f"{role}{shapes[role]}" for role in sorted(shapes))


def test_every_recorded_model_is_in_a_table():
    assert set(STRUCTURE) == {name for _, name in MODELS}


@pytest.mark.parametrize("table, name", MODELS, ids=[name for _, name in MODELS])
def test_every_model_has_its_layers_and_is_told_by_them(table, name):
    leaves, layers = _layers(table, name)
    lines = [_line(leaves, *layer) for layer in layers]
    assert [len(lines), zlib.crc32("\n".join(lines).encode())] == STRUCTURE[name]

    older, newer, counts = {}, {}, Counter()
    for layer, kind, places in layers:
        position = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        for number, (role, path) in enumerate(places.items()):
            shape = oracle.comparable(kind, role, leaves[path].shape)
            if role == "depthwise_kernel":
                shape = (*shape[:2], shape[3], 1)
            zeros = np.broadcast_to(np.float32(0), shape)
            older[f"{layer}/{layer}/{role}:0"] = newer[f"layers/{position}/vars/{number}"] = zeros
    for tensors in (older, newer):
        config = converter.describe(tensors, {}, "the file").replace(converter="keras")
        assert (config.architecture, config.n_classes) == (table.models[name].architecture, 1000)
        found, fresh = lay_out(model_of(config), tensors, config)
        assert {path: value.shape for path, value in found.items()} == {p: leaf.shape for p, leaf in leaves.items()}
        assert not fresh
