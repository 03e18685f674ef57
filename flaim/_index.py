"""Finds the family of an architecture in the generated `models/index.json`, without importing any family."""

import difflib
import functools
import json
import re
from importlib import resources


@functools.cache
def _families() -> dict[str, dict[str, dict[str, int]]]:
    """Each family's architectures with their index entries."""
    return json.loads(resources.files("flaim.models").joinpath("index.json").read_text(encoding="utf-8"))


@functools.cache
def _architectures() -> dict[str, str]:
    """Each architecture's family."""
    return {name: family for family, names in _families().items() for name in names}


def facts_of(architecture: str) -> dict[str, int]:
    """An architecture's number of parameters, `"params"`, and multiply-adds for one image of its own size, `"macs"`."""
    return _families()[family_of(architecture)][architecture]


def families() -> tuple[str, ...]:
    """Names of the families, sorted."""
    return tuple(_families())


def list_architectures(pattern: str = "") -> list[str]:
    """Every architecture name that the regular expression `pattern` matches somewhere, sorted."""
    return sorted(name for name in _architectures() if re.search(pattern, name))


def is_architecture(name: str) -> bool:
    """Whether there is an architecture of this name."""
    return name in _architectures()


def family_of(architecture: str) -> str:
    """Name of the family that has `architecture`; if none has, a `LookupError` names similar architectures."""
    if architecture not in _architectures():
        nearest = difflib.get_close_matches(architecture, _architectures(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise LookupError(f"there is no architecture called {architecture!r}{hint}")
    return _architectures()[architecture]
