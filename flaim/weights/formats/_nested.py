"""Flatten nested dictionaries of arrays to one dictionary by path."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats._fields import Budget
from flaim.weights.formats._lazy import LazyArray

MAX_DEPTH = 64


def flatten(tree: Any, where: str) -> dict[str, Any]:
    """The arrays by path: keys and list indices joined with "/". Other values are left out.

    Args:
        tree: Dictionaries, lists, tuples and arrays. A container may occur many times, or contain itself.
        where: Name of the file in errors.
    """
    found: dict[str, Any] = {}
    budget = Budget()

    def visit(node: Any, path: str, depth: int) -> None:
        try:
            budget.spend(4, len(path))
        except ValueError as error:
            raise CheckpointError(f"{where}, {path[:200]}: {error}") from None
        if depth > MAX_DEPTH:
            raise CheckpointError(f"{where} is nested more than {MAX_DEPTH} deep, at {path[:200]}")
        node = getattr(node, "value", node)  # an `Array` from a pickle
        if isinstance(node, np.ndarray | LazyArray):
            if path in found:
                raise CheckpointError(f"{where} has two arrays called {path[:200]!r}")
            found[path] = node
        elif isinstance(node, Mapping | list | tuple):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            for key, value in items:
                visit(value, f"{path}/{key}" if depth else str(key), depth + 1)

    visit(tree, "", 0)
    return found
