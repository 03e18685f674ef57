"""Detect the format of a file of tensors from its content, and call the reader of that format."""

import importlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats._hdf5_format import starts_at
from flaim.weights.formats._lazy import LazyArray
from flaim.weights.formats._mapped import intact, mapped
from flaim.weights.formats._pickle import MAGIC_OF_TORCH

# Names of the formats in messages; each key is also the name of the format's module.
FORMATS = {
    "safetensors": "safetensors",
    "index": "index of sharded checkpoints",
    "hdf5": "HDF5",
    "keras": "Keras",
    "npz": "NumPy .npz",
    "torch": "PyTorch",
    "msgpack": "Flax msgpack",
    "pickle": "pickle",
}

_MAY_BEGIN_PICKLES = b"\x80(}]c"
_BEGINS_MSGPACK_MAPS = {*range(0x81, 0x90), 0xDE, 0xDF}
_HINTS = (
    (b"version https://git-lfs", "it is a Git LFS pointer: fetch the file that it stands for (git lfs pull)"),
    (b"<", "it looks like a web page: the download went wrong"),
    (b"\x93NUMPY", "it is a lone array without a name"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it"),
    (b"BZh", "it is compressed with bzip2: unpack it"),
)


def format_of(path: str | PathLike) -> str:
    """The format of a file, a key of `FORMATS`.

    Raises:
        FileNotFoundError, CheckpointError: As `read` does.
    """
    path = Path(path)
    return detect(path, mapped(path))


def call(path: Path, data: memoryview, name: str, function: str) -> dict[str, Any]:
    """Call `"read"` or `"metadata"` of the reader of the format `name`."""
    reader = importlib.import_module(f"flaim.weights.formats._{name}")
    with intact(path, FORMATS[name]):
        return getattr(reader, function)(path, data)


def detect(path: Path, data: memoryview) -> str:
    """The format of a file with this content."""
    start = bytes(data[:16])
    if start[:4] == b"PK\x03\x04":
        return _zip_format(path, data)
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= len(data) - 8:
        return "safetensors"
    if starts_at(data) is not None:
        return "hdf5"
    if start[:1] == b"{":
        return "index"
    if bytes(data[: len(MAGIC_OF_TORCH)]) == MAGIC_OF_TORCH:
        return "torch"
    if start and start[0] in _BEGINS_MSGPACK_MAPS:
        return "msgpack"
    if start and start[0] in _MAY_BEGIN_PICKLES:
        return "pickle"
    if path.suffix == ".safetensors":  # its reader gives the best error message
        return "safetensors"
    if not start:
        raise CheckpointError(f"{path} is empty")
    hint = next((hint for magic, hint in _HINTS if start.startswith(magic[:16])), f"it begins with {start!r}")
    raise CheckpointError(
        f"{path} ({len(data)} bytes) is in none of the formats that flaim reads ({', '.join(FORMATS.values())}); {hint}"
    )


def _zip_format(path: Path, data: memoryview) -> str:
    from flaim.weights.formats._zip import Archive

    names = list(Archive(path, data).members)
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise CheckpointError(
        f"{path} is a zip file, but neither Keras', NumPy's nor PyTorch's; it has {some or 'nothing'}"
    )


def guarded(path: Path, name: str, value: Any) -> Any:
    """The array; if a lazy one turns out to be damaged, the error names file and array."""
    if not isinstance(value, LazyArray):
        return value

    def load() -> np.ndarray:
        with intact(path, "checkpoint", f", {name[:200]},"):
            return value.load()

    return LazyArray(value.shape, value.dtype, load)
