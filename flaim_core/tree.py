"""Nested dicts and their paths."""

from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]


def nest(flat: Mapping[Path, Any]) -> dict:
    """A nested dict from leaves by path."""
    tree: dict = {}
    for (*parents, name), value in flat.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def flatten(tree: Mapping, prefix: Path = ()) -> dict[str, Any]:
    """A nested dict as a flat one whose keys are paths, `"params/conv1/kernel"`."""
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
