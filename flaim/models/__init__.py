"""The model families, one module for each forward graph, and what makes a model of them."""

from typing import TYPE_CHECKING

from flaim._lazy import lazy

if TYPE_CHECKING:
    from flaim.family import Family
    from flaim.fuse import fuse
    from flaim.model import Feature, Model
    from flaim.pretrained import get_model
    from flaim.registry import create, families, family, family_of, list_architectures

__all__ = [
    "Family",
    "Feature",
    "Model",
    "create",
    "families",
    "family",
    "family_of",
    "fuse",
    "get_model",
    "list_architectures",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Family": "flaim.family",
        "Feature": "flaim.model",
        "Model": "flaim.model",
        "create": "flaim.registry",
        "families": "flaim.registry",
        "family": "flaim.registry",
        "family_of": "flaim.registry",
        "fuse": "flaim.fuse",
        "get_model": "flaim.pretrained",
        "list_architectures": "flaim.registry",
    },
)
