"""Nested dictionaries of arrays as one dictionary of paths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers._lazy import Lazy

MAX_DEPTH = 64


def flatten(tree: Any, where: str, size: int) -> dict[str, Any]:
    """The arrays by the keys that lead to them, joined by "/". Lists count their items; other values are left out.

    Args:
        tree: Dictionaries, lists, tuples and arrays.
        where: What errors call the file.
        size: Of the file in bytes. Names may take a few times that: dictionaries that hold one another many times over
            would make more of them than memory has room for.
    """
    found: dict[str, Any] = {}
    room = 1_000_000 + 16 * size

    def visit(node: Any, path: str, depth: int) -> None:
        nonlocal room
        room -= len(path) + 8
        if depth > MAX_DEPTH or room < 0:
            raise CheckpointError(
                f"{where} is nested more than {MAX_DEPTH} deep, at {path[:100]}"
                if depth > MAX_DEPTH
                else f"{where} holds the same things many times over, at {path[:100]}"
            )
        node = getattr(node, "value", node)  # an array in the making
        if isinstance(node, np.ndarray | Lazy):
            if path in found:
                raise CheckpointError(f"{where} has two arrays called {path!r}")
            found[path] = node
        elif isinstance(node, Mapping | list | tuple):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            for key, value in items:
                visit(value, f"{path}/{key}" if depth else str(key), depth + 1)

    visit(tree, "", 0)
    return found
