"""NumPy's `.npz`: a zip file with an array in each member."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers import _mapped
from flaim.weights.readers._lazy import Lazy
from flaim.weights.readers._zip import Archive

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MAX_HEADER = 12_000  # numpy reads no more than 10,000 characters


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The arrays: views of stored members; compressed ones are unpacked when they are used."""
    archive = Archive(path, data)
    return {member.removesuffix(".npy"): _array(archive, member) for member in archive.members}


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Nothing."""
    return {}


def _array(archive: Archive, member: str) -> np.ndarray | Lazy:
    start, size = archive.start(member), archive.members[member].file_size
    try:
        if start is not None:
            head = bytes(archive.data[start : start + min(size, _MAX_HEADER)])
        else:
            with zipfile.ZipFile(archive.path) as opened, opened.open(member) as file:
                head = file.read(_MAX_HEADER)
        shape, fortran, dtype, offset = _header(head)
    except Exception as error:
        raise CheckpointError(
            f"{archive.name(member)} is no array of numbers ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if offset + math.prod(shape) * dtype.itemsize != size:
        raise CheckpointError(
            f"{archive.name(member)}: found {size - offset} bytes, expected shape {shape} of type {dtype}"
        )
    order = "F" if fortran else "C"
    if start is not None:
        return _mapped.view(archive.data, start + offset, dtype, shape, order)
    return Lazy(shape, dtype, lambda: _mapped.view(memoryview(archive.unpack(member)), offset, dtype, shape, order))


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran's order, type, and where the numbers begin."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype == np.dtype("V2"):  # numpy knows no bfloat16, and keeps its bytes
        return shape, fortran, _mapped.EXTENDED["bfloat16"], file.tell()
    return shape, fortran, _mapped.dtype_of(dtype.str), file.tell()
