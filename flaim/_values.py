"""Configurations as values: they compare, hash, copy and pickle by their content."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

_HOMES = (jax.nn, jnp, jax.lax)


@dataclass(frozen=True)
class Named:
    """A JAX function by its public name; functions that JAX has wrapped in a transformation do not pickle."""

    module: str
    name: str

    @property
    def function(self) -> Callable:
        """The function itself."""
        return getattr(importlib.import_module(self.module), self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{self.module}.{self.name}"


class Bound(functools.partial):
    """`functools.partial` that compares by its function and arguments."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bound):
            return NotImplemented
        return (self.func, self.args, self.keywords) == (other.func, other.args, other.keywords)

    def __hash__(self) -> int:
        return hash((self.func, len(self.args), frozenset(self.keywords)))  # the values may be unhashable


def as_value(option: Any) -> Any:
    """`option` with sequences as tuples, partial functions as `Bound` and JAX functions as `Named`, recursively."""
    if isinstance(option, list | tuple):
        return tuple(map(as_value, option))
    if isinstance(option, functools.partial):
        keywords = {name: as_value(value) for name, value in option.keywords.items()}
        return Bound(as_value(option.func), *map(as_value, option.args), **keywords)
    if is_dataclass(option) and not isinstance(option, type | Named):
        return replace(option, **{field.name: as_value(getattr(option, field.name)) for field in fields(option)})
    if callable(option) and not isinstance(option, type):
        name = getattr(option, "__name__", "")
        home = next((home for home in _HOMES if getattr(home, name, None) is option), None)
        return option if home is None else Named(home.__name__, name)
    return option
