"""JSON that anybody may have written."""

import json
from typing import Any

from flaim.weights.readers._fields import MAX_STEPS, MAX_TEXT


def parse(document: bytes | str) -> Any:
    """The document's value.

    Raises:
        ValueError, RecursionError: It is no JSON, has a key twice, or is larger or deeper than any checkpoint's.
    """
    if len(document) > MAX_TEXT:
        raise ValueError(f"a document of {len(document)} bytes")
    marks: Any = ",[{" if isinstance(document, str) else (b",", b"[", b"{")
    if sum(map(document.count, marks)) > MAX_STEPS // 2:
        raise ValueError("a document of too many values")
    return json.loads(document, object_pairs_hook=_object)


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        seen: set[str] = set()
        twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice[:200]!r} is there twice")
    return found
