"""Tensors of a safetensors file, memory-mapped: nothing is read before it is used."""

import json
import mmap
from os import PathLike
from pathlib import Path

import ml_dtypes
import numpy as np

from flaim.weights.errors import CheckpointError

# safetensors' names of the types; numpy has no bfloat16 and float8 of its own.
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


def read_safetensors(path: str | PathLike) -> dict[str, np.ndarray]:
    """The file's tensors by name, as read-only views of the mapped file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is truncated, corrupt or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy"):  # checks the header, and that the file holds what it promises
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not an intact safetensors file ({error}); it has {path.stat().st_size} bytes. "
            "If it was downloaded or copied, it is probably incomplete: get it again"
        ) from error
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    if unknown := {entry["dtype"] for entry in header.values()} - set(_DTYPES):
        raise CheckpointError(f"{path} has tensors of unknown type {', '.join(sorted(unknown))}")
    return {name: _view(data, start, entry) for name, entry in header.items()}


def _view(data: mmap.mmap, start: int, entry: dict) -> np.ndarray:
    begin, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    array = np.frombuffer(data, np.uint8, end - begin, start + begin) if end > begin else np.empty(0, np.uint8)
    return array.view(dtype).reshape(entry["shape"])
