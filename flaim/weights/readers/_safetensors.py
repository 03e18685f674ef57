"""safetensors: a JSON header, then the tensors' bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers._mapped import EXTENDED, intact

# safetensors' names of the types.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BF16": EXTENDED["bfloat16"],
    "F8_E4M3": EXTENDED["float8_e4m3fn"],
    "F8_E5M2": EXTENDED["float8_e5m2"],
}


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The tensors, as views of the file."""
    header, start = _header(path, data)
    header.pop("__metadata__", None)
    if unknown := {entry["dtype"] for entry in header.values()} - set(_DTYPES):
        raise CheckpointError(f"{path} has tensors of unknown type {', '.join(sorted(unknown))}")
    return {name: _view(data, start, entry) for name, entry in header.items()}


def metadata(path: Path, data: memoryview) -> dict[str, Mapping]:
    """The header's own notes."""
    notes = _header(path, data)[0].get("__metadata__")
    return {"__metadata__": notes} if notes else {}


def _header(path: Path, data: memoryview) -> tuple[dict[str, Any], int]:
    from safetensors import SafetensorError, safe_open

    with intact(path, "safetensors"):
        try:
            with safe_open(path, framework="numpy"):  # checks the header, and that the file holds what it promises
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(error) from error
        start = 8 + int.from_bytes(data[:8], "little")
        return json.loads(bytes(data[8:start])), start


def _view(data: memoryview, start: int, entry: dict) -> np.ndarray:
    begin, end = entry["data_offsets"]
    dtype = _DTYPES[entry["dtype"]]
    array = np.frombuffer(data, np.uint8, end - begin, start + begin) if end > begin else np.empty(0, np.uint8)
    return array.view(dtype).reshape(entry["shape"])
