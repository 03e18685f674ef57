"""`ModelType`: how a model type of transformers maps to one of flaim's families, and how its configuration is read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flaim_core as core
from flaim.weights.info import NORMALISATIONS, size_of

Json = dict[str, Any]


class HFConfig(dict):
    """A configuration of transformers, with defaults filled in.

    Attributes:
        tensors: The checkpoint's tensors, by the names of the PyTorch model.
        refused: Options with a value that flaim's model cannot express, as `"option=value"`.
    """

    def __init__(self, options: Json, tensors: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.tensors = tensors
        self.refused: list[str] = []

    def require(self, option: str, fits: bool) -> None:
        """Refuse the value of `option` unless it fits."""
        if not fits:
            self.refused.append(f"{option}={self[option]!r}")


@dataclass(frozen=True)
class ModelType:
    """A model type of transformers (`model_type` in `config.json`), and how it maps to flaim's models.

    Attributes:
        family: flaim's family.
        variants: A pattern; the model is named after the nearest architecture whose name matches.
        defaults: transformers' options with their default values.
        same: For options of our model function, the option of transformers with the same value.
        fixed: transformers' options that our model function does not have: only the default value is accepted.
        more: The remaining options of our model function, from the configuration.
        processor: Default settings of the image processor. With `square`, a size of one number is that of both sides;
            otherwise it is that of the shorter side.
        any_size: The same variables work for images of any size.
    """

    family: str
    variants: str
    defaults: Json
    same: Mapping[str, str]
    fixed: Sequence[str] = ()
    more: Callable[[HFConfig], Json] = lambda c: {}
    processor: Json = field(default_factory=dict)
    any_size: bool = False


def options_of(
    model_type: ModelType, config: Mapping[str, Any], tensors: Mapping[str, Any]
) -> tuple[Json, tuple[int, int], list[str]]:
    """Options of our model function as JSON, the image size, and the options that flaim does not have."""
    c = HFConfig(
        {**model_type.defaults, **{option: value for option, value in config.items() if value is not None}}, tensors
    )
    for option in model_type.fixed:
        c.require(option, c[option] == model_type.defaults[option])
    c.require("pruned_heads", not c.setdefault("pruned_heads", {}))
    options = {option: c[theirs] for option, theirs in model_type.same.items()} | model_type.more(c)
    options = {option: list(value) if isinstance(value, tuple) else value for option, value in options.items()}
    return options, size_of(c["image_size"]), c.refused


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "swish": "silu",
}


def function(name: str, **arguments: Any) -> Json:
    """A function as an option in JSON, with arguments bound."""
    return {"function": name, **arguments}


def act(c: HFConfig) -> Json:
    """The activation `hidden_act`."""
    c.require("hidden_act", c["hidden_act"] in _ACTIVATIONS)
    return function(_ACTIVATIONS.get(c["hidden_act"], ""))


def norm(name: str, eps: float) -> Json:
    """The norm of flaim's with this name and epsilon."""
    default = inspect.signature(getattr(core, name)).parameters["eps"].default
    return function(name) if eps == default else function(name, eps=eps)


# Default settings of image processors, by part.
INCEPTION, CLIP_STATS, IMAGENET = (
    dict(zip(("image_mean", "image_std"), NORMALISATIONS[name])) for name in ("inception", "clip", "imagenet")
)
BILINEAR, BICUBIC = {"resample": 2, "square": False}, {"resample": 3, "square": False}
