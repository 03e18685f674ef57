"""Pretrained image models for Flax Linen, Flax NNX, Equinox and Haiku, from one parameter tree.

`get_model` here is that of `flaim.adapters.linen`; each adapter has its own.
"""

import importlib
from typing import TYPE_CHECKING, Any

from flaim._lazy import lazy

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
_getattr, __dir__ = lazy(__name__, {name: _LAZY.get(name, __name__) for name in __all__})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("flaim")
    return _getattr(name)
