"""Convert options of models to JSON and back, for saved configurations.

A function is `{"function": name}` with its bound arguments, `{"function": "layer_norm", "eps": 1e-12}`; a dataclass has
the same form. Only names from the family's `choices`, `flaim_core` and `jax.nn` are allowed.
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
    """The functions and classes that the family's options may name: its own choices, `flaim_core`'s and `jax.nn`'s."""
    found: dict[str, Any] = dict(family(family_name).choices)
    for module in (core, core.ops, jax.nn):
        public = {name: value for name, value in vars(module).items() if not name.startswith("_") and callable(value)}
        found |= {name: value for name, value in public.items() if name not in found}
    return found


@functools.cache
def _names(family_name: str) -> dict[Any, str]:
    """The name under which each choice is saved: the first of its names."""
    names: dict[Any, str] = {}
    for name, value in choices(family_name).items():
        names.setdefault(as_value(value), name)
    return names


def to_json(value: Any, family_name: str) -> Any:
    """Convert an option of the family to JSON; a value that is not one of the `choices` stays unchanged."""
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
    """The options in which `model` differs from its published architecture, as JSON."""
    family_name = family_of(model.name)
    published = {name: to_json(value, family_name) for name, value in create(model.name).config}
    options = {name: to_json(value, family_name) for name, value in model.config}
    changed = {name: value for name, value in options.items() if name not in published or published[name] != value}
    return {**changed, "fused": True} if model.fused else changed


def options_from(overrides: Mapping[str, Any], family_name: str) -> dict[str, Any]:
    """The inverse of `overrides_of`: options of the model function.

    Raises:
        ValueError: An option names an unknown choice, or gives it arguments that it does not take.
    """
    return {name: from_json(name, value, family_name) for name, value in overrides.items()}


def from_json(option: str, value: Any, family_name: str) -> Any:
    """The inverse of `to_json`; `option` is the option's name, for error messages."""
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
    """The architecture that needs the fewest overrides for these options, and the overrides, as JSON.

    Only architectures of the family whose names match `pattern` are considered. If several need equally few overrides,
    one for images of `size` is preferred.
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
    """The `mlp_ratio` for which `int(dim * mlp_ratio) == hidden`."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)
