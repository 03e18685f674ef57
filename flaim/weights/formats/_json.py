"""Parse JSON from untrusted files."""

import json
from typing import Any

from flaim.weights.formats._fields import Budget


def parse(document: str) -> Any:
    """The document's value.

    Raises:
        ValueError, RecursionError: It is not JSON, has a duplicate key, or is larger or deeper than any checkpoint's.
    """
    Budget().spend(2 * sum(map(document.count, ",[{")), len(document))
    return json.loads(document, object_pairs_hook=_object)


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        seen: set[str] = set()
        twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:200]!r} is there twice")
    return found
