"""The model families: one file per forward graph, found by architecture name."""

import difflib
import functools
import importlib
import pkgutil
import re
from typing import Any

from flaim.models._fuse import fuse
from flaim.models._model import Family, Feature, Model, build

__all__ = ["Family", "Feature", "Model", "create", "families", "family_of", "fuse", "get_model", "list_architectures"]


@functools.cache
def families() -> tuple[str, ...]:
    """Names of the families: the modules of this package."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


@functools.cache
def family(name: str) -> Family:
    """The family called `name`."""
    return importlib.import_module(f"{__name__}.{name}").FAMILY


@functools.cache
def _index() -> dict[str, str]:
    """Architecture name to family name."""
    return {variant: name for name in families() for variant in family(name).variants}


def list_architectures(pattern: str = "") -> list[str]:
    """Every architecture name that the regular expression `pattern` matches somewhere, sorted."""
    return sorted(name for name in _index() if re.search(pattern, name))


def family_of(architecture: str) -> str:
    """Name of the family that has `architecture`; a `LookupError` names the nearest ones where there is none."""
    if architecture not in _index():
        nearest = difflib.get_close_matches(architecture, _index(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise LookupError(f"there is no architecture called {architecture!r}{hint}")
    return _index()[architecture]


def create(
    name: str,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    in_channels: int = 3,
    **overrides: Any,
) -> Model:
    """The model `name` without variables.

    Args:
        name: Architecture name, timm's: `"resnet50"`, `"vit_base_patch16_224"`; `list_architectures()` has them all.
        n_classes: Positive: logits; -1: the last linear layer's input; 0: the final feature map; None: as published.
        input_size: Images' side, or (height, width); None: as published.
        in_channels: Images' channels.
        overrides: Options of the model function, and `dtype`, `remat`, `scan` as in `flaim_core.apply`.

    Raises:
        LookupError: There is no such architecture; the message names the nearest ones.
        TypeError: The model has no such option.
    """
    return build(family(family_of(name)), name, n_classes, input_size, in_channels, **overrides)


def __getattr__(attribute: str) -> Any:
    if attribute == "get_model":  # loading weights builds on models, so it cannot be imported from here at once
        from flaim.weights import get_model

        return get_model
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
