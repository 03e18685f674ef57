"""Nested dicts and their paths; shapes of arrays."""

from collections.abc import Mapping
from typing import Any

import jax

Path = tuple[str, ...]


def nest(flat: Mapping[Path, Any]) -> dict:
    """A nested dict from a flat one whose keys are paths as tuples: `{("params", "fc", "bias"): x}`."""
    tree: dict = {}
    for (*parents, name), value in flat.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def flatten(tree: Mapping, prefix: Path = ()) -> dict[str, Any]:
    """A flat dict whose keys are paths: `{"params": {"fc": {"bias": x}}}` as `{"params/fc/bias": x}`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        path = (*prefix, str(name))
        flat |= flatten(value, path) if isinstance(value, Mapping) else {"/".join(path): value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    return nest({tuple(path.split("/")): value for path, value in flat.items()})


def merge(tree: Mapping, updates: Mapping[Path, Any]) -> dict:
    """`tree` with the leaves at the paths of `updates` replaced."""
    flat = flatten(tree) | {"/".join(path): value for path, value in updates.items()}
    return unflatten(flat)


def shape_struct(x: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array or a `Leaf`."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
