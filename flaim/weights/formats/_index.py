"""The index of a sharded checkpoint: which tensor is in which file beside it."""

from pathlib import Path
from typing import Any

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _files, _json, _mapped


def shards_of(path: Path) -> list[str]:
    """The names of the files that an index refers to.

    Raises:
        CheckpointError: The file is not an index, or refers to a file outside its own folder.
    """
    return list(dict.fromkeys(_weight_map(_index(path, _mapped.mapped(path)), path).values()))


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The tensors of all shards; checks that each is in the file that the index gives."""
    weight_map = _weight_map(_index(path, data), path)
    tensors: dict[str, Any] = {}
    problems = []
    for shard in dict.fromkeys(weight_map.values()):
        file = path.parent / shard
        if not file.is_file():
            problems.append(f"there is no file {shard}")
            continue
        content = _mapped.mapped(file)
        if (kind := _files.detect(file, content)) == "index":
            problems.append(f"{shard} is an index itself")
            continue
        arrays = _files.call(file, content, kind, "read")
        found = {name: _files.guarded(file, name, value) for name, value in arrays.items()}
        problems += [f"{name}: in {shard}, but not in the index" for name in found if weight_map.get(name) != shard]
        tensors |= found
    problems += [f"{name}: not in {shard}" for name, shard in weight_map.items() if name not in tensors]
    if problems:
        more = [f"and {len(problems) - 50} more"] if len(problems) > 50 else []
        listed = "".join(f"\n  {problem[:400]}" for problem in problems[:50] + more)
        raise CheckpointError(f"{path} does not agree with the files beside it:{listed}")
    return tensors


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """The index's own metadata."""
    notes = _index(path, data).get("metadata")
    return {"__metadata__": notes} if isinstance(notes, dict) else {}


def _index(path: Path, data: memoryview) -> dict[str, Any]:
    with _mapped.intact(path, "JSON"):
        return _json.parse(str(data, "utf-8"))


def _weight_map(index: dict[str, Any], path: Path) -> dict[str, str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{path} is a JSON file, but no index of a checkpoint in several files")
    outside = {name for name in weight_map.values() if name in ("", ".", "..") or set(name) & set("/\\:\0")}
    if outside:
        names = ", ".join(repr(name[:200]) for name in sorted(outside)[:10])
        raise CheckpointError(f"{path} refers to files that are not in its folder: {names}")
    return weight_map
