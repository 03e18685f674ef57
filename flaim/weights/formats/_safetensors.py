"""safetensors: a JSON header, then the tensors' bytes, one tensor after the other without a gap.

We read the header ourselves: it is little work, and the library's errors do not say which tensor is wrong.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _json, _mapped

# safetensors' names of dtypes.
_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "C64": np.dtype("<c8"),
    "BF16": _mapped.EXTENDED["bfloat16"],
    "F8_E4M3": _mapped.EXTENDED["float8_e4m3fn"],
    "F8_E5M2": _mapped.EXTENDED["float8_e5m2"],
    "F8_E4M3FNUZ": _mapped.EXTENDED["float8_e4m3fnuz"],
    "F8_E5M2FNUZ": _mapped.EXTENDED["float8_e5m2fnuz"],
}


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The tensors, as views of the file."""
    header, start = _header(path, data)
    header.pop("__metadata__", None)
    tensors: dict[str, Any] = {}
    problems, places = [], []
    for name, entry in header.items():
        try:
            begin, end, tensors[name] = _view(data, start, entry)
            places.append((begin, end, name))
        except Exception as error:
            problems.append(f"{name[:200]}: {str(error)[:200] or type(error).__name__}")
    position = 0
    for begin, end, name in sorted(places):
        if begin != position and not problems:
            where = "overlaps the one before" if begin < position else "leaves a gap before it"
            problems.append(
                f"{name[:200]}: it begins at byte {begin} of the data and {where}, which ends at {position}"
            )
        position = end
    if position != len(data) - start and not problems:
        problems.append(f"the tensors end at byte {start + position}, the file has {len(data)}")
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        text = "".join(f"\n  {problem}" for problem in problems[:20] + more)
        raise CheckpointError(
            f"{path} is not an intact safetensors file (of {len(data)} bytes). If it was downloaded or copied, it is "
            f"probably incomplete: get it again. What is wrong:{text}"
        )
    return tensors


def metadata(path: Path, data: memoryview) -> dict[str, Mapping]:
    """The metadata in the header."""
    notes = _header(path, data)[0].get("__metadata__")
    return {"__metadata__": notes} if notes else {}


def _header(path: Path, data: memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    with _mapped.intact(path, "safetensors"):
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > len(data) - 8:
            raise ValueError(f"a header of {size} bytes is announced")
        header = _json.parse(str(data[8 : 8 + size], "utf-8"))
        notes = header.get("__metadata__", {})
        if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
            raise ValueError("its __metadata__ is not a mapping from text to text")
        return header, 8 + size


def _view(data: memoryview, start: int, entry: dict) -> tuple[int, int, np.ndarray]:
    """Where a tensor begins and ends in the data, and the tensor."""
    begin, end = _mapped.shape_of(entry["data_offsets"])
    shape = _mapped.shape_of(entry["shape"])
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"it is of an unknown type, {str(entry['dtype'])[:50]}")
    dtype = _DTYPES[entry["dtype"]]
    size = math.prod(shape) * dtype.itemsize
    if end - begin != size or start + end > len(data):
        raise ValueError(
            f"it is at bytes {begin} to {end} of {len(data) - start}, but shape {shape} of {dtype} takes {size}"
        )
    return begin, end, _mapped.view(data, start + begin, dtype, shape) if size else np.empty(shape, dtype)
