"""Keras Applications' checkpoints, read without Keras: tables from its layers' names to flaim's paths.

`TABLES` has a table for each family; `_files` converts every kind of file to the same form.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import flaim_core as core
from flaim.options import options_from
from flaim.registry import create, family
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.converters.keras import (
    convnext,
    densenet,
    efficientnet,
    efficientnetv2,
    inception_resnet_v2,
    inception_v3,
    mobilenet,
    nasnet,
    resnet,
    resnet_rs,
    resnetv2,
    vgg,
    xception,
)
from flaim.weights.converters.keras._files import Layers, Weights, layers_of
from flaim.weights.converters.keras._table import PREPROCESSING, Entry, Flattened, Table
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo, Preprocessing

TABLES: tuple[Table, ...] = (
    convnext.TABLE,
    densenet.TABLE,
    efficientnet.EFFICIENTNET,
    efficientnet.MOBILENET_V2,
    efficientnetv2.BASE,
    efficientnetv2.LARGE,
    inception_resnet_v2.TABLE,
    inception_v3.TABLE,
    mobilenet.MOBILENET,
    mobilenet.MOBILENET_V3,
    nasnet.TABLE,
    resnet.TABLE,
    resnet_rs.TABLE,
    resnetv2.TABLE,
    vgg.TABLE,
    xception.TABLE,
)

# Numbered weights, TensorFlow's names, or weights in a group that repeats the layer's name.
_NAMES = re.compile(r"/vars/\d+$|/[^/]*(kernel|gamma|beta|moving_mean|_W)(_\d+)?:0$|(^|/)([^/]+)/\4/(kernel|gamma)$")


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether these are a Keras file's tensors."""
    if any("keras_version" in attributes or "layer_names" in attributes for attributes in _objects(documents)):
        return True
    return any(_NAMES.search(name) for name in tensors)


def _objects(documents: Mapping[str, Any]) -> Iterable[Mapping]:
    """`documents`, and the mappings in it."""
    yield documents
    yield from (value for value in documents.values() if isinstance(value, Mapping))


@functools.cache
def _entries() -> dict[str, tuple[Table, str]]:
    """The table and Keras' name of the model, by flaim's architecture."""
    return {entry.architecture: (table, name) for table in TABLES for name, entry in table.models.items()}


def entry_of(architecture: str) -> Entry:
    """The table's entry for flaim's `architecture`; LookupError if there is none."""
    table, name = _entries()[architecture]
    return table.models[name]


class _Match(NamedTuple):
    """A file's weights matched with a model's layers: found, missing and unexpected ones."""

    architecture: str
    found: dict[str, Weights]
    missing: list[str]
    unexpected: dict[str, Weights]


def _match(layers: Layers, architecture: str) -> _Match:
    """The file's weights by Keras' names of the layers of `architecture`."""
    table, model = _entries()[architecture]
    paths = table.layers(model)
    last = next((name for name, path in paths.items() if path == family(table.family).classifier), None)
    named = layers.named
    if table.synonyms:
        named = {table.name(name): weights for name, weights in named.items()}
    found = {name: weights for name, weights in named.items() if name in paths}
    unexpected = {name: weights for name, weights in named.items() if name not in paths}
    for kind, group in layers.ordered.items():
        names = table.classes(model).get(kind, [])
        found |= dict(zip(names, group))
        unexpected |= {f"{kind}_{i}": group[i] for i in range(len(names), len(group))}
    if last is not None and last not in found:  # the user's own classifier may have any name
        dense = [name for name, weights in unexpected.items() if len(_shape(weights.get("kernel"))) == 2]
        if len(dense) == 1:
            found[last] = unexpected.pop(dense[0])
    optional = {last} if _has_head(table, found) else {last, *table.head}
    missing = [name for name in paths if name not in found and name not in optional and paths[name]]
    return _Match(architecture, found, missing, unexpected)


def _has_head(table: Table, found: Mapping[str, Weights]) -> bool:
    """Whether the layers of the top before the classifier are there, if the model has any."""
    return not table.head or any(name in found for name in table.head)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor is None else tuple(tensor.shape)


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description of the Keras model whose layers are in the file at `where`.

    Raises:
        CheckpointError: No model in flaim has these layers; the message names the nearest one.
    """
    layers = layers_of(tensors)
    matches = [_match(layers, architecture) for architecture in _entries()]
    fewest = min(len(match.missing) + len(match.unexpected) for match in matches)
    candidates = [match for match in matches if len(match.missing) + len(match.unexpected) == fewest]
    if fewest or not candidates[0].found:
        raise CheckpointError(f"{where} is a Keras file of a model that flaim does not have{_nearest(candidates[0])}")
    found = [_info(match, documents) for match in candidates]
    if len(found) > 1:  # models with the same layers, but other widths
        found.sort(key=lambda info: _misfits(tensors, info))
    return found[0]


def _nearest(match: _Match) -> str:
    """The differences between the file and the most similar model."""
    if not match.found:
        return ""
    lines = [f"{name}: missing" for name in match.missing]
    lines += [
        f"{name}: unexpected, shapes {', '.join(str(_shape(w)) for w in weights.values())}"
        for name, weights in match.unexpected.items()
    ]
    return f"; it is most like {match.architecture}, but for these layers:\n  " + "\n  ".join(lines)


def _misfits(tensors: Tensors, info: CheckpointInfo) -> int:
    options = options_from(info.overrides, info.family)
    model = create(info.architecture, info.n_classes, info.input_size, info.in_channels, **options)
    leaves = core.flatten(model.spec())
    found = translate(tensors, info, leaves)
    return sum(path not in found or tuple(found[path].shape) != leaf.shape for path, leaf in leaves.items())


def _info(match: _Match, documents: Documents) -> CheckpointInfo:
    table, name = _entries()[match.architecture]
    entry, paths = table.models[name], table.layers(name)
    classifier = family(table.family).classifier
    last = next((weights for layer, weights in match.found.items() if paths[layer] == classifier), None)
    kernel = _shape(match.found[_first(table, name)].get("kernel"))
    channels = kernel[2] if len(kernel) == 4 else 3
    preprocessing = _built_in(match) if table.preprocessing == "built in" else PREPROCESSING[table.preprocessing]
    if channels != 3:
        preprocessing = {key: tuple(value[i % 3] for i in range(channels)) for key, value in preprocessing.items()}
    overrides, side = dict(entry.overrides), entry.input_size
    if (flattened := table.flattened) is not None and flattened.layer in match.found:
        option = flattened.option
        side = side // entry.overrides[option] * _map_side(flattened, match.found)
        overrides[option] = _map_side(flattened, match.found)
    if table.multiplied is not None:
        layer, option = table.multiplied
        *_, multiplier = _shape(next(iter(match.found.get(layer, {}).values()), None)) or (1,)
        if multiplier > 1:
            overrides[option] = multiplier
    without_last = -1 if _has_head(table, match.found) else 0
    return CheckpointInfo(
        model=match.architecture,
        family=table.family,
        architecture=match.architecture,
        overrides=overrides,
        n_classes=(_shape(last.get("kernel")) or (-1,))[-1] if last else without_last,
        in_channels=channels,
        preprocessing=Preprocessing(input_size=_input_size(documents) or (side, side), **preprocessing),
    )


def _map_side(flattened: Flattened, found: Mapping[str, Weights]) -> int:
    """Side of the flattened map before a dense layer; 0 if the kernel's shape is not that of a dense layer."""
    rows, width = _shape(found[flattened.layer].get("kernel"))[:1], _shape(found[flattened.before].get("kernel"))[-1:]
    return math.isqrt(rows[0] // width[0]) if rows and width else 0


def _first(table: Table, model: str) -> str:
    """Name of the convolution whose input is the images."""
    return table.first or table.classes(model)["conv2d"][0]


_IMAGENET_STD = (0.229, 0.224, 0.225)


def _built_in(match: _Match) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation, for pixels in [0, 1], of a model that normalises its images itself.

    A normalisation layer divides by the square root of its variance. In the published EfficientNets this variance is
    ImageNet's standard deviation, and Keras divides by its square root a second time, so in effect by the deviation.
    """
    weights = match.found.get("normalization")
    if weights is None:
        return PREPROCESSING["torch"]
    mean, variance = (np.asarray(weights[role], np.float64).reshape(-1) for role in ("mean", "variance"))
    published = variance.shape == (3,) and np.allclose(variance, _IMAGENET_STD, rtol=1e-3)
    return {"mean": tuple(mean.tolist()), "std": tuple((variance if published else np.sqrt(variance)).tolist())}


def _input_size(documents: Documents) -> tuple[int, int] | None:
    """Height and width of the images, if the file has the model's configuration and this gives them."""
    for layer in _walk(documents.get("config.json") or documents.get("model_config")):
        shape = layer.get("batch_shape") or layer.get("batch_input_shape")
        if isinstance(shape, list | tuple) and len(shape) == 4 and all(isinstance(side, int) for side in shape[1:3]):
            return shape[1], shape[2]
    return None


def _walk(value: Any) -> Iterable[Mapping]:
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by leaf path, in flaim's layouts; tensors without a layer in the model keep Keras' names."""
    table, name = _entries()[info.architecture]
    paths, first = table.layers(name), _first(table, name)
    layers = layers_of(tensors)
    match = _match(layers, info.architecture)
    result = dict(layers.rest)
    for layer, weights in match.found.items():
        if paths[layer]:
            kind = table.kind(layer)
            if layer == first and table.preprocessing == "caffe" and _shape(weights.get("kernel"))[2:3] == (3,):
                weights = {**weights, "kernel": np.asarray(weights["kernel"])[:, :, ::-1]}
            if table.flattened is not None and layer == table.flattened.layer:
                weights = {
                    **weights,
                    "kernel": _unflattened(weights.get("kernel"), _map_side(table.flattened, match.found)),
                }
            result |= _leaves(table, paths[layer], kind, weights)
    for layer, weights in match.unexpected.items():
        result |= {f"{layer}/{role}": tensor for role, tensor in weights.items()}
    return result


_LEAVES = {
    "kernel": "params/{}/kernel",
    "depthwise_kernel": "params/{}/kernel",
    "pointwise_kernel": "params/{}/kernel",
    "bias": "params/{}/bias",
    "gamma": "params/{}/scale",
    "beta": "params/{}/bias",
    "moving_mean": "batch_stats/{}/mean",
    "moving_variance": "batch_stats/{}/var",
}


def _leaves(table: Table, path: str, kind: str, weights: Weights) -> dict[str, Any]:
    """The leaves of one layer by their paths."""
    if kind == "depthwise_conv2d":  # in Keras 3 it is "kernel", as in other layers
        weights = {"depthwise_kernel" if role == "kernel" else role: tensor for role, tensor in weights.items()}
    if kind == "batch_normalization" and "gamma" not in weights and "beta" in weights:  # a norm without scale
        weights = {"gamma": np.ones(weights["beta"].shape, weights["beta"].dtype), **weights}
    places = _places(table, path, kind, weights)
    return {
        places[role]: _depthwise(tensor) if role == "depthwise_kernel" else tensor for role, tensor in weights.items()
    }


def _places(table: Table, path: str, kind: str, roles: Iterable[str]) -> dict[str, str]:
    """The leaf paths of a layer's weights by role; `path` is the layer's."""
    path, _, leaf = path.partition(":")
    if leaf:
        return dict.fromkeys(roles, f"params/{path}/{leaf}")
    parents = {}
    if kind == "separable_conv2d":
        depthwise, pointwise = (f"{path}/{child}" for child in table.separable)
        parents = {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise, "bias": pointwise}
    return {role: _LEAVES.get(role, "{}/" + role).format(parents.get(role, path)) for role in roles}


def _unflattened(kernel: Any, side: int) -> Any:
    """Convert a dense layer's kernel on a flattened map of this side to that of a convolution over the whole map."""
    if side == 0 or len(kernel.shape) != 2 or kernel.shape[0] % side**2:
        return kernel
    return np.asarray(kernel).reshape(side, side, -1, kernel.shape[1])


def _depthwise(kernel: Any) -> Any:
    """Convert a depthwise kernel (height, width, channels, multiplier) for a convolution with one group per channel."""
    if len(kernel.shape) != 4:
        return kernel
    height, width, channels, multiplier = kernel.shape
    return np.asarray(kernel).reshape(height, width, 1, channels * multiplier)


KERAS = Converter("keras", recognises, describe, translate)
