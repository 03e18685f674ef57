"""`get_model` and `from_pretrained` of every adapter: those of `flaim.pretrained`, with the model wrapped."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVarTuple

from flaim.model import Model

P = ParamSpec("P")
Ts = TypeVarTuple("Ts")
NormStats = dict[str, tuple[float, ...]]


def loading(
    load: Callable[P, tuple[Model, dict, NormStats]], wrap: Callable[..., tuple[*Ts]], doc: str
) -> Callable[P, tuple[*Ts, NormStats]]:
    """`load` with `wrap` applied to the model and variables that it returns, and with the docstring `doc`.

    The result also takes the keyword options of `wrap`.
    """
    options = [p for p in inspect.signature(wrap).parameters.values() if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(load)
    def call(*args: P.args, **kwargs: P.kwargs) -> tuple[*Ts, NormStats]:
        own = {option.name: kwargs.pop(option.name) for option in options if option.name in kwargs}
        model, variables, norm_stats = load(*args, **kwargs)
        return *wrap(model, variables, **own), norm_stats

    call.__doc__ = doc
    call.__module__ = wrap.__module__.removesuffix("._module")
    *shown, overrides = inspect.signature(load).parameters.values()
    call.__signature__ = inspect.Signature([*shown, *options, overrides])  # type: ignore[attr-defined]
    return call
