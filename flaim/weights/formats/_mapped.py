"""Memory-mapped files, and the one kind of error that damaged ones raise."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flaim.weights.errors import CheckpointError

# Types that numpy does not have, by the name that every container format uses.
EXTENDED = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
}

_NUMBERS = "biufc"
_MAX_NDIM = 32


def mapped(path: Path) -> memoryview:
    """The file's bytes, read-only; the system reads them when they are used.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:  # empty files cannot be mapped
            return memoryview(b"")


@contextmanager
def intact(path: Path, kind: str, place: str = "") -> Iterator[None]:
    """Turn any error of a parser into a `CheckpointError` that names the file and the place in it."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes can raise any kind of error in a parser
        raise CheckpointError(
            f"{path}{place} is not an intact {kind} file ({type(error).__name__}: {_brief(error)}); it has "
            f"{path.stat().st_size} bytes. If it was downloaded or copied, it is probably incomplete: get it again"
        ) from error


def _brief(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 300 else f"{text[:300]}..."


def dtype_of(name: str) -> np.dtype:
    """The numeric type that numpy or ml_dtypes calls `name`.

    Raises:
        ValueError: There is no such type.
    """
    if name in EXTENDED:
        return EXTENDED[name]
    try:
        dtype = np.dtype(name if len(name) < 20 else "V")
    except (TypeError, ValueError, SyntaxError):
        dtype = np.dtype("V")
    if dtype.kind not in _NUMBERS or dtype.itemsize > 16:
        raise ValueError(f"{name[:50]!r} is not a type of numbers")
    return dtype


def shape_of(sides: Any) -> tuple[int, ...]:
    """Check a shape from a file.

    Raises:
        ValueError: It is not a valid shape.
    """
    # The messages do not show the items, which may be of any kind and size.
    if not isinstance(sides, list | tuple) or len(sides) > _MAX_NDIM:
        raise ValueError("a shape that is no list of numbers, or a very long one")
    if any(type(side) is not int or not 0 <= side < 1 << 63 for side in sides):
        raise ValueError("a shape of other things than numbers, or of negative or huge ones")
    return tuple(sides)


def view(data: memoryview, start: int, dtype: np.dtype, shape: Any, order: str = "C") -> np.ndarray:
    """An array whose bytes begin at `start`, without a copy.

    Raises:
        ValueError: The file ends before the array does, or `shape` is not valid.
    """
    if start < 0:
        raise ValueError(f"an array that begins at {start}")
    return np.ndarray(shape_of(shape), dtype, data, start, order="F" if order == "F" else "C")
