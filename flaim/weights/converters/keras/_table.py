"""`Table`: a family of Keras' models, and the flaim paths of their layers."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flaim.weights.info import NORMALISATIONS

# A layer's class from its name, if the file does not give the class; the first pattern that matches counts.
_KINDS = (
    (r"^normalization", "normalization"),
    (r"(?i)(^|_)bn(_|\d|$)|batch_?norm", "batch_normalization"),
    (r"(?i)(^|_)sep", "separable_conv2d"),
    (r"(?i)(^|_)(dw|depthwise)", "depthwise_conv2d"),
    (r"^(predictions|fc\d?)$", "dense"),
    (r"", "conv2d"),
)

# Normalisation of Keras' `preprocess_input` by its mode, for pixels in [0, 1]. Images of "caffe" models are BGR; the
# converter reverses the channels of their first kernel, so that images are RGB in flaim.
PREPROCESSING: dict[str, dict[str, Any]] = {
    keras: dict(zip(("mean", "std"), NORMALISATIONS[name]))
    for keras, name in (("caffe", "caffe"), ("tf", "inception"), ("128", "128"), ("torch", "imagenet"))
}


Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]


def by_rules(names: Callable[..., Iterable[str]], rules: Rules) -> Callable[..., Iterable[tuple[str, str]]]:
    """Make `Table.pairs` from names alone: the first rule that matches the whole name gives the path."""

    def path(name: str) -> str:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
        raise LookupError(f"no rule for Keras' layer {name!r}")

    return lambda *args: ((name, path(name)) for name in names(*args))


class Entry(NamedTuple):
    """One of Keras' models.

    Attributes:
        args: Arguments of `Table.pairs`, usually the depths.
        architecture: flaim's name for it.
        overrides: Options in which Keras' model differs from flaim's architecture, as JSON.
        input_size: Side of the images that Keras' model is made for.
    """

    architecture: str
    args: tuple = ()
    overrides: Mapping[str, Any] = {}
    input_size: int = 224


class Flattened(NamedTuple):
    """A dense layer on a flattened map; in flaim it is a convolution over the whole map.

    Attributes:
        layer: Its name.
        before: The name of a layer whose output has as many channels as the map.
        option: The option of flaim's model function for the side of the map, which is square.
    """

    layer: str
    before: str
    option: str


class Table(NamedTuple):
    """A family of Keras' models, with the flaim paths of their layers.

    Attributes:
        family: The module of `flaim.models`.
        preprocessing: A key of `PREPROCESSING`; `"built in"` if the model normalises its images itself.
        pairs: Keras' names of the layers that have weights, each with flaim's path, in the order of Keras'
            `model.layers` (by depth, counted from the output). The order identifies layers in files that have only
            classes and order. Generated names are those of the first model in a session: `conv2d_1`. A path that ends
            in `:leaf` is of a layer whose only weight is that leaf. A layer that flaim does not need has an empty path.
        models: Keras' models by Keras' name.
        kinds: Patterns for a layer's class, tried before the common ones.
        separable: Paths of the two convolutions of a separable convolution, below its own path.
        synonyms: (pattern, replacement) pairs that convert other names of the layers, from older versions of Keras or
            with the model's name in them, to those of `pairs`.
        head: The layers before the classifier that a file without the model's top lacks.
        flattened: The dense layer on a flattened map, if there is one.
        multiplied: A depthwise layer, and the option of flaim's model function for the depth multiplier.
        first: The convolution whose input is the images, if it is not the first in `pairs`.
    """

    family: str
    preprocessing: str
    pairs: Callable[..., Iterable[tuple[str, str]]]
    models: Mapping[str, Entry]
    kinds: tuple[tuple[str, str], ...] = ()
    separable: tuple[str, str] = ("conv1", "pointwise")
    synonyms: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = ()
    head: tuple[str, ...] = ()
    flattened: Flattened | None = None
    multiplied: tuple[str, str] | None = None
    first: str | None = None

    def __hash__(self) -> int:
        return id(self)

    def layers(self, model: str) -> dict[str, str]:
        """flaim's paths of a model's layers by Keras' names, in Keras' order."""
        return _layers(self, self.models[model].args)

    def classes(self, model: str) -> dict[str, list[str]]:
        """A model's layers by class, in Keras' order."""
        return _classes(self, self.models[model].args)

    def name(self, name: str) -> str:
        """The layer's name in the table."""
        for pattern, replacement in self.synonyms:
            name = re.sub(pattern, replacement, name)
        return name

    def kind(self, name: str) -> str:
        """The class of the layer called `name`."""
        return next(kind for pattern, kind in (*self.kinds, *_KINDS) if re.search(pattern, name))


@functools.lru_cache(maxsize=256)
def _layers(table: Table, args: tuple) -> dict[str, str]:
    return dict(table.pairs(*args))


@functools.lru_cache(maxsize=256)
def _classes(table: Table, args: tuple) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for name in _layers(table, args):
        classes.setdefault(table.kind(name), []).append(name)
    return classes
