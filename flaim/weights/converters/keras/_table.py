"""What a table says of a family of Keras' models."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flaim.weights.info import NORMALISATIONS

# A layer's class from its name, where a file does not say it: the first pattern that is found.
_KINDS = (
    (r"^normalization", "normalization"),
    (r"(?i)(^|_)bn(_|\d|$)|batch_?norm", "batch_normalization"),
    (r"(?i)(^|_)sep", "separable_conv2d"),
    (r"(?i)(^|_)(dw|depthwise)", "depthwise_conv2d"),
    (r"^(predictions|fc\d?)$", "dense"),
    (r"", "conv2d"),
)

# By the name that Keras has for it, what its `preprocess_input` does, for pixels in [0, 1]. The first convolution of
# "caffe" models sees blue first; their kernels are turned around, so that here too images are RGB.
PREPROCESSING: dict[str, dict[str, Any]] = {
    keras: dict(zip(("mean", "std"), NORMALISATIONS[name]))
    for keras, name in (("caffe", "caffe"), ("tf", "inception"), ("128", "128"), ("torch", "imagenet"))
}


Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]


def by_rules(names: Callable[..., Iterable[str]], rules: Rules) -> Callable[..., Iterable[tuple[str, str]]]:
    """`Table.pairs` from names alone: the first rule whose pattern is the whole name gives the path."""

    def path(name: str) -> str:
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, name):
                return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
        raise LookupError(f"no rule for Keras' layer {name!r}")

    return lambda *args: ((name, path(name)) for name in names(*args))


class Entry(NamedTuple):
    """One of Keras' models.

    Attributes:
        args: What `Table.pairs` takes: usually the depths.
        architecture: flaim's name of it.
        overrides: Options of flaim's model function in which Keras' differs, as JSON has them.
        input_size: Side of the images that Keras' is made for.
    """

    architecture: str
    args: tuple = ()
    overrides: Mapping[str, Any] = {}
    input_size: int = 224


class Flattened(NamedTuple):
    """A dense layer on a flattened map, a convolution over all of the map in flaim.

    Attributes:
        layer: Its name.
        before: The name of a layer whose output is as wide as the map.
        option: The option of flaim's model function that is the side of the map, which is square.
    """

    layer: str
    before: str
    option: str


class Table(NamedTuple):
    """A family of Keras' models, and the way from its layers' names to flaim's paths.

    Attributes:
        family: The module of `flaim.models`.
        preprocessing: A key of `PREPROCESSING`; `"built in"` where the model normalises its images itself.
        pairs: Keras' names of the layers that have weights, each with flaim's path. They are in the order of Keras'
            `model.layers` (by depth, counted from the output), which says which layer is which where a file has classes
            and order alone. Names that Keras makes up are as in a session that made this model first: `conv2d_1`.
            A path that ends in `:leaf` is of a layer whose only weight is that leaf; a layer whose path is empty has
            nothing that flaim's model needs.
        models: Keras' models by the name Keras gives them.
        kinds: Patterns that say a layer's class, before the common ones.
        separable: Below a separable convolution's path, those of its two convolutions.
        synonyms: (pattern, replacement) pairs that turn other names of the layers, which older versions of Keras gave
            or which contain the model's, into those of `pairs`.
        head: The layers before the classifier that a file without the model's top lacks.
        flattened: The dense layer on a flattened map, where there is one.
        multiplied: A depthwise layer, and the option of flaim's model function that says how many maps such layers
            make of each channel.
        first: The convolution that sees the images, where it is not the first.
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
        """flaim's paths of a model's layers, by Keras' names and in its order."""
        return _layers(self, self.models[model].args)

    def classes(self, model: str) -> dict[str, list[str]]:
        """A model's layers by their class, in its order."""
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
