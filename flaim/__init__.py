"""Pretrained image models for Flax Linen, Flax NNX, Equinox and Haiku, from one parameter tree.

`get_model` here is that of `flaim.adapters.linen`; each adapter has its own.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flaim import adapters, checkpoints, data, export, models, weights
    from flaim.adapters.linen import get_model
    from flaim.weights import list_models

    __version__: str

__all__ = [
    "__version__",
    "adapters",
    "checkpoints",
    "data",
    "export",
    "get_model",
    "list_models",
    "models",
    "weights",
]

# Frameworks, and jax itself, are imported on first use.
_LAZY = {"get_model": "flaim.adapters.linen", "list_models": "flaim.weights"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("flaim")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    globals()[name] = value = getattr(importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
