"""Finds a family or builds a model by its name; only the family that is needed is imported."""

import functools
import importlib
import inspect
from typing import Any

import jax.numpy as jnp

from flaim._index import families, family_of, list_architectures
from flaim.family import Family
from flaim.model import Model

__all__ = ["build", "create", "families", "family", "family_of", "list_architectures"]


@functools.cache
def family(name: str) -> Family:
    """The family called `name`, `FAMILY` of the module `flaim.models.<name>`."""
    return importlib.import_module(f"flaim.models.{name}").FAMILY


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


def build(
    family: Family,
    name: str,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    in_channels: int = 3,
    **overrides: Any,
) -> Model:
    """As `create`, for the variant `name` of a family that doesn't have to be in the index."""
    config = dict(family.variants[name])
    default_size, default_classes = config.pop("input_size", 224), config.pop("n_classes", 1000)
    fields = {k: overrides.pop(k) for k in ("dtype", "remat", "scan", "fused") if k in overrides}
    if fields.get("dtype") is not None:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    options = [p for p in inspect.signature(family.fn).parameters if p not in ("scope", "x", "n_classes")]
    if unknown := sorted(set(overrides) - set(options)):
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(options))}")
    size = default_size if input_size is None else input_size
    return Model(
        name=name,
        fn=family.fn,
        config=tuple(sorted({**config, **overrides}.items())),
        classifier=family.classifier,
        input_size=(size, size) if isinstance(size, int) else tuple(size),
        n_classes=default_classes if n_classes is None else n_classes,
        in_channels=in_channels,
        **fields,
    )
