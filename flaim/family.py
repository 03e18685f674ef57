"""`Family`: models that share one forward graph, their variants, and the names in their checkpoints."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

# A pattern and its replacement; None drops each name that matches the pattern.
Rule = tuple[str, str | Callable[[re.Match], str] | None]


class OlderNames(NamedTuple):
    """An older naming scheme of a family's checkpoints: how to recognise it and convert it to the current names.

    Attributes:
        marker: A pattern that matches a name in the file if and only if the file uses this scheme.
        rules: Applied to each name, one after the other; see `rename`.
        finish: Converts the renamed tensors to the final ones, for changes other than renaming.
    """

    marker: str
    rules: tuple[Rule, ...]
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None


class Timm(NamedTuple):
    """timm's version of a family.

    Attributes:
        modules: Modules of `timm.models` that define its models.
        args: For each of timm's constructor arguments, the option of our model function and, if the values differ, a
            mapping from timm's values to ours (as JSON).
        fixed_input_size: timm builds these models for one image size only.
        unused: `(architecture, tensor name)`: whether a file may have this tensor although the model does not use it.
        interpolation: How to resample an architecture's position embeddings; see `resample_position_embedding`.
    """

    modules: tuple[str, ...]
    args: Mapping[str, tuple[str, Mapping | None]] = {}
    fixed_input_size: bool = False
    unused: Callable[[str, str], bool] = lambda architecture, name: False
    interpolation: Callable[[str], str] = lambda architecture: "bicubic"


@dataclass(frozen=True)
class Family:
    """Models that share one forward graph.

    Attributes:
        fn: The model function: a kernel `fn(scope, x, *, n_classes, **options)`, images `(batch, height, width,
            channels)`. `n_classes` is positive for logits, -1 for the input of the last linear layer, 0 for the final
            feature map or tokens.
        classifier: Path of the last linear layer, `"head/fc"`.
        variants: Keyword arguments of `fn` by architecture name, and the model's defaults `input_size` and `n_classes`
            if these are not 224 and 1000.
        choices: The functions and dataclasses that a saved configuration may name; the names must never change.
            `flaim_core`'s and `jax.nn`'s need no entry. A function with several names is saved under the first.
        timm: timm's version of the family; None if timm does not have it.
        older_names: Older naming schemes of its checkpoints.
        tiny: A small variant with each kind of block, for tests: an architecture and the options that make it small.
    """

    fn: Callable
    classifier: str
    variants: Mapping[str, Mapping[str, Any]]
    choices: Mapping[str, Any] = field(default_factory=dict)
    timm: Timm | None = None
    older_names: tuple[OlderNames, ...] = ()
    tiny: tuple[str, Mapping[str, Any]] | None = None


def add_zero_bias(layer: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`OlderNames.finish` for a linear layer, by timm's name, that has no bias in the file: it gets a bias of zeros."""

    def finish(tensors: dict[str, Any]) -> dict[str, Any]:
        if (weight := tensors.get(f"{layer}.weight")) is not None:
            tensors.setdefault(f"{layer}.bias", np.zeros(weight.shape[0], weight.dtype))
        return tensors

    return finish


def rename(name: str, rules: Sequence[Rule]) -> str | None:
    """Apply `rules` to the name, in order; None if a rule drops it."""
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, name):
                return None
        else:
            name = re.sub(pattern, replacement, name)
    return name
