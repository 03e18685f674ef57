"""NumPy's `.npz`: a zip file with an array in each member."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.formats import _mapped
from flaim.weights.formats._lazy import LazyArray
from flaim.weights.formats._zip import Archive

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_HEADER = 12_000  # numpy reads no more than 10,000 characters


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The arrays: views of stored members; compressed ones are unpacked when they are used."""
    archive = Archive(path, data)
    return {member.removesuffix(".npy"): _array(archive, member) for member in archive.members}


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Empty: the format has no metadata."""
    return {}


def _array(archive: Archive, member: str) -> np.ndarray | LazyArray:
    found = archive.members[member]
    with _mapped.intact(archive.path, "NumPy", f", {member[:200]},"):
        shape, fortran, dtype, start = _header(archive.head(member, _MAX_HEADER))
        expected = start + math.prod(_mapped.shape_of(shape)) * dtype.itemsize
        if expected != found.size:
            raise ValueError(f"{found.size} bytes, expected {expected} for shape {shape} and type {dtype}")
        order = "F" if fortran else "C"
        if found.stored:
            return _mapped.view(archive.content(member), start, dtype, shape, order)
    return LazyArray(shape, dtype, lambda: _mapped.view(memoryview(archive.unpack(member)), start, dtype, shape, order))


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether it is in Fortran order, dtype, and where the numbers begin."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype == np.dtype("V2"):  # numpy saves bfloat16 as opaque bytes
        return shape, fortran, _mapped.EXTENDED["bfloat16"], file.tell()
    return shape, fortran, _mapped.dtype_of(dtype.str), file.tell()
