"""Convert all kinds of Keras files to one form: which weights belong to which layer.

Keras has used three naming schemes. Older files have a group for each layer, and paths in it that repeat the layer's
name: `conv1_conv/conv1_conv/kernel:0`; for layers of a nested model, the outer model's name comes first. Files of
Keras 3 (and `.keras` archives, which contain one) name a layer by its class and its index among the layers of that
class, and number its weights: `layers/conv2d_1/vars/0`. Keras 1 had other names for weights: `conv1_W:0`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Weights = dict[str, Any]  # by role: "kernel", "gamma", ...


class Layers(NamedTuple):
    """The weights in a file: of layers with a name, of layers known by class and order, and of no layer."""

    named: dict[str, Weights]
    ordered: dict[str, list[Weights]]
    rest: dict[str, Any]


# Other content of a file: the optimiser's state, metrics, the seeds of dropout layers.
_BESIDE = re.compile(r"^(optimizer|optimizer_weights|metrics|compile_metrics|loss)/|(^|/)seed_generator(_\d+)?/")

_NUMBERED = re.compile(r"^(?P<parents>(?:.*/)?)(?P<kind>[^/]+?)(?:_(?P<place>\d+))?/vars/(?P<number>\d+)$")
_NAMED = re.compile(
    r"(?:^|_)(?P<role>depthwise_kernel|pointwise_kernel|kernel|bias|gamma|beta|moving_mean|moving_variance|running_mean|"
    r"running_std|mean|variance|count|[vV]ariable|W|b)(?:_\d+)?(?::\d+)?$"
)
_OLDER_ROLES = {
    "W": "kernel",
    "b": "bias",
    "variable": "gamma",
    "Variable": "gamma",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}

# The roles of a layer's weights in their order, by the layer's class.
_ROLES = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "layer_normalization": ("gamma", "beta"),
    "layer_scale": ("gamma",),
    "normalization": ("mean", "variance", "count"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
}


def layers_of(tensors: Mapping[str, Any]) -> Layers:
    """The file's weights, layer by layer."""
    named: dict[str, Weights] = {}
    rest: dict[str, Any] = {}
    numbered: dict[str, dict[tuple[str, int], dict[int, Any]]] = {}
    for name, tensor in tensors.items():
        path = re.sub(r"^(model\.weights\.h5|model_weights)/", "", name)
        if _BESIDE.search(path):
            continue
        if match := _NUMBERED.match(path):
            layer = match["kind"], int(match["place"] or 0)
            numbered.setdefault(match["parents"], {}).setdefault(layer, {})[int(match["number"])] = tensor
        elif (layer_and_role := _named(path)) is not None:
            named.setdefault(layer_and_role[0], {})[layer_and_role[1]] = tensor
        else:
            rest[name] = tensor
    ordered: dict[str, list[Weights]] = {}
    # Of nested models, the one with the most layers comes first in the order.
    for _, layers in sorted(numbered.items(), key=lambda item: -len(item[1])):
        for kind, place in sorted(layers):
            weights = layers[kind, place]
            ordered.setdefault(kind, []).append(_by_role(kind, [weights[i] for i in sorted(weights)]))
    return Layers(_renumbered(named), ordered, rest)


def _named(path: str) -> tuple[str, str] | None:
    """A layer's name and the role of one of its weights, from a path in an older file."""
    *parents, last = path.split("/")
    match = _NAMED.search(last)
    if match is None or not parents:
        return None
    # The weight's path repeats the group's name, possibly inside other scopes; names of layers may have slashes.
    repeated = (parents[:n] for n in range(len(parents) // 2, 0, -1) if parents[:n] == parents[-n:])
    layer = next(repeated, parents[1:] or parents)
    return "/".join(layer), _OLDER_ROLES.get(match["role"], match["role"])


def roles_of(kind: str) -> tuple[str, ...]:
    """The roles of the weights of a layer of the class `kind`, in their order."""
    return _ROLES.get(kind, ("kernel", "bias"))


def _by_role(kind: str, weights: list) -> Weights:
    roles = roles_of(kind)
    if kind == "batch_normalization" and len(weights) == 3:
        roles = roles[1:]  # a norm without scale
    return dict(zip((*roles, *map(str, range(len(roles), len(weights)))), weights))


# Names that Keras generates: the layer's class, and a number that counts up during a session.
_MADE_UP = re.compile(
    r"^(conv2d|convolution2d|batch_?normalization|depthwise_conv2d|separable_conv2d|layer_normalization|normalization)"
    r"(?:_(\d+))?$"
)
_OLDER_CLASSES = {"convolution2d": "conv2d", "batchnormalization": "batch_normalization"}


def _renumbered(named: dict[str, Weights]) -> dict[str, Weights]:
    """Number the layers with generated names from the start, as if this model were the first of its session."""
    made_up: dict[str, list[tuple[int, str]]] = {}
    for name in named:
        if match := _MADE_UP.match(name):
            kind = _OLDER_CLASSES.get(match[1], match[1])
            made_up.setdefault(kind, []).append((int(match[2] or 0), name))
    new = {}
    for kind, names in made_up.items():
        for place, (_, name) in enumerate(sorted(names)):
            new[name] = f"{kind}_{place}" if place else kind
    return {new.get(name, name): weights for name, weights in named.items()}
