"""Files of tensors: one reader for each container format, chosen by the file's content, not by its name.

A reader returns names and arrays and knows no model. The arrays are read-only views of the mapped file if the format
allows it, otherwise `LazyArray`s; nested names are joined with "/". No reader runs or imports anything that a file
names, or follows its links. A damaged or hostile file raises a `CheckpointError` that names file and place.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from flaim.weights.formats import _files, _index
from flaim.weights.formats._files import FORMATS, format_of
from flaim.weights.formats._index import shards_of
from flaim.weights.formats._lazy import LazyArray
from flaim.weights.formats._mapped import intact, mapped

__all__ = ["FORMATS", "LazyArray", "format_of", "metadata", "read", "shards_of"]


def read(path: str | PathLike) -> dict[str, Any]:
    """The tensors in a file by name. Each has `shape` and `dtype`, and `np.asarray` gives its numbers.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file has none of the formats, is damaged, or holds other things than tensors.
    """
    path = Path(path)
    return {name: _files.guarded(path, name, value) for name, value in _call(path, "read").items()}


def metadata(path: str | PathLike) -> dict[str, Mapping]:
    """A file's metadata, by the name of the document.

    HDF5: `"attributes"` of the root and `"attributes/..."` of each group, bytes decoded, and `"model_config"`, parsed.
    Keras: the same, with `"config.json"` and `"metadata.json"`. safetensors: `"__metadata__"`, if it has one.

    Raises:
        FileNotFoundError, CheckpointError: As `read` does.
    """
    return _call(Path(path), "metadata")


def _call(path: Path, function: str) -> dict[str, Any]:
    data = mapped(path)
    name = _files.detect(path, data)
    if name == "index":
        with intact(path, FORMATS[name]):
            return getattr(_index, function)(path, data)
    return _files.call(path, data, name, function)
