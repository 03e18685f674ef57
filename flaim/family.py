"""`Family`: models that share one forward graph, with all that is known of them and of their checkpoints' names."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

# A pattern and what replaces it; a name that the pattern matches is dropped where the replacement is None.
Rule = tuple[str, str | Callable[[re.Match], str] | None]


class OlderNames(NamedTuple):
    """An older form of a family's checkpoints: how to recognise it, and the way to the names of today.

    Attributes:
        marker: A pattern that matches a name in the file if and only if the file has this form.
        rules: Applied to each name, one after the other; see `rename`.
        finish: What renaming alone cannot do: from the renamed tensors to the final ones.
    """

    marker: str
    rules: tuple[Rule, ...]
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None


class Timm(NamedTuple):
    """What timm has of a family.

    Attributes:
        modules: Modules of `timm.models` that have its models.
        args: timm's constructor arguments: the option of our model function that each stands for, and, where values
            differ, what timm's value is here (as JSON has it).
        fixed_input_size: timm builds these models for one size of images.
        unused: `(architecture, tensor name)`: whether a file may have this tensor though the model has no use for it.
        interpolation: Of an architecture's position embeddings; see `resample_position_embedding`.
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
        variants: Keyword arguments of `fn` by architecture name. `input_size` and `n_classes`, where they are not 224
            and 1000, are the model's own and do not reach `fn`.
        choices: The functions and dataclasses that a saved configuration may name, by names that never change.
            `flaim_core`'s and `jax.nn`'s need no entry. The first name of a function is the one that is written.
        timm: What timm has of the family; None where it has nothing.
        older_names: Older forms of its checkpoints.
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
    """The name after `rules`, in order; None where it is dropped."""
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, name):
                return None
        else:
            name = re.sub(pattern, replacement, name)
    return name
