"""Files mapped into memory, and the one kind of error that reading them ends in."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from flaim.weights.errors import CheckpointError

# Types that numpy does not have of its own, by the name that every container gives them.
EXTENDED = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
}

_NUMBERS = "biufc"


def mapped(path: Path) -> memoryview:
    """The file's bytes, read-only; the system reads them as they are used.

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
def intact(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser makes of a damaged file into an error that says so."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # bytes that nobody wrote on purpose break parsers in every way there is
        raise CheckpointError(
            f"{path} is not an intact {kind} file ({type(error).__name__}: {_brief(error)}); it has "
            f"{path.stat().st_size} bytes. If it was downloaded or copied, it is probably incomplete: get it again"
        ) from error


def _brief(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 300 else f"{text[:300]}..."


def dtype_of(name: str) -> np.dtype:
    """The numeric type that numpy or ml_dtypes calls `name`.

    Raises:
        ValueError: There is none.
    """
    if name in EXTENDED:
        return EXTENDED[name]
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind not in _NUMBERS or dtype.itemsize > 16:
        raise ValueError(f"{name[:50]!r} is no type of numbers")
    return dtype


def view(data: memoryview, start: int, dtype: np.dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    """An array of which the bytes begin at `start`, without a copy.

    Raises:
        ValueError: The file ends before the array does.
    """
    if any(not isinstance(side, int) or side < 0 for side in shape) or start < 0:
        raise ValueError(f"no array has shape {shape} or begins at {start}")
    return np.ndarray(shape, dtype, data, start, order="F" if order == "F" else "C")
