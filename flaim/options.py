"""Options of models as JSON, and back: what a saved configuration says of a model.

A function is `{"function": name}`, with the arguments that are bound, `{"function": "layer_norm", "eps": 1e-12}`; so is
a dataclass. Names are those of the family's `choices`, of `flaim_core` and of `jax.nn`, and nothing else is looked up.
"""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import jax

import flaim_core as core
from flaim._values import as_value
from flaim.model import Model
from flaim.registry import create, family, family_of

__all__ = ["choices", "from_json", "nearest", "options_from", "overrides_of", "ratio_of", "to_json"]


@functools.cache
def choices(family_name: str) -> dict[str, Any]:
    """What an option of a model of the family may be, by name: the family's choices, `flaim_core`'s, `jax.nn`'s."""
    found: dict[str, Any] = dict(family(family_name).choices)
    for module in (core, core.ops, jax.nn):
        public = {name: value for name, value in vars(module).items() if not name.startswith("_") and callable(value)}
        found |= {name: value for name, value in public.items() if name not in found}
    return found


@functools.cache
def _names(family_name: str) -> dict[Any, str]:
    """The name that is written for each choice: its first."""
    names: dict[Any, str] = {}
    for name, value in choices(family_name).items():
        names.setdefault(as_value(value), name)
    return names


def to_json(value: Any, family_name: str) -> Any:
    """An option of a model of the family as JSON has it; what is no choice stays as it is."""
    value = as_value(value)
    if isinstance(value, tuple):
        return [to_json(item, family_name) for item in value]
    names = _names(family_name)
    arguments: Mapping[str, Any] = {}
    function = value
    if isinstance(value, functools.partial) and not value.args and value.func in names:
        function, arguments = value.func, value.keywords
    elif dataclasses.is_dataclass(value) and type(value) in names:
        function = type(value)
        arguments = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not callable(function) or function not in names:
        return value
    return {"function": names[function], **{name: to_json(item, family_name) for name, item in arguments.items()}}


def overrides_of(model: Model) -> dict[str, Any]:
    """The options in which `model` differs from the architecture that it is named after, as JSON has them."""
    family_name = family_of(model.name)
    published = {name: to_json(value, family_name) for name, value in create(model.name).config}
    options = {name: to_json(value, family_name) for name, value in model.config}
    changed = {name: value for name, value in options.items() if name not in published or published[name] != value}
    return {**changed, "fused": True} if model.fused else changed


def options_from(overrides: Mapping[str, Any], family_name: str) -> dict[str, Any]:
    """The inverse of `overrides_of`: options of the model function.

    Raises:
        ValueError: An option names no choice of the family, or gives it arguments that it does not take.
    """
    return {name: from_json(name, value, family_name) for name, value in overrides.items()}


def from_json(option: str, value: Any, family_name: str) -> Any:
    """The inverse of `to_json`; `option` is the option's name, for the message of an error."""
    if isinstance(value, list | tuple):
        return tuple(from_json(option, item, family_name) for item in value)
    if not isinstance(value, Mapping):
        return value
    chosen: Any = choices(family_name).get(str(value.get("function")))
    is_record = isinstance(chosen, type) and dataclasses.is_dataclass(chosen)
    if not is_record and (not callable(chosen) or isinstance(chosen, type)):
        raise ValueError(f"{family_name} has no function {dict(value)} for its option {option!r}")
    arguments = {name: from_json(option, item, family_name) for name, item in value.items() if name != "function"}
    try:
        return chosen(**arguments) if is_record else _bound(chosen, tuple(sorted(arguments.items())))
    except TypeError as error:
        raise ValueError(f"{family_name} cannot make {dict(value)} for its option {option!r}: {error}") from error


@functools.lru_cache(maxsize=256)
def _bound(function: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    """The function with its arguments bound; the same object for the same arguments, so that models compare equal."""
    return functools.partial(function, **dict(arguments)) if arguments else function


def nearest(
    family_name: str, pattern: str, options: Mapping[str, Any], size: tuple[int, int]
) -> tuple[str, dict[str, Any]]:
    """The architecture that comes nearest to a model with these options, and its overrides, all as JSON has them.

    Of the family's architectures whose names fit `pattern`, it is the one that needs fewest overrides, for images of
    `size` if several do.
    """
    fn, variants = family(family_name).fn, family(family_name).variants
    defaults = {p.name: p.default for p in inspect.signature(fn).parameters.values()}
    found = {}
    for name in filter(re.compile(pattern).search, variants):
        own = {option: to_json(variants[name].get(option, defaults[option]), family_name) for option in options}
        overrides = {option: value for option, value in options.items() if value != own[option]}
        side = variants[name].get("input_size", 224)
        found[name] = len(overrides), (side, side) != size and side != size, overrides
    name = min(found, key=lambda name: found[name][:2])
    return name, found[name][2]


def ratio_of(hidden: int, dim: int) -> float:
    """The `mlp_ratio` of which `int(dim * mlp_ratio)` is `hidden`."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
