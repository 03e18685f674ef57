"""One thin adapter per framework: it holds the leaves, calls the pure function, and stores the updates.

`linen`, `nnx`, `eqx` and `haiku` each have `get_model`, `wrap` (from a framework-free model and its variables),
`to_variables` (back to canonical variables) and `layers` (each kernel as a module of that framework).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaim.adapters import eqx, haiku, linen, nnx

__all__ = ["eqx", "haiku", "linen", "nnx"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")  # this imports the framework too


def __dir__() -> list[str]:
    return __all__
