"""Pickles of nested dictionaries of arrays, and the names that are allowed in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _mapped
from flaim.weights.formats._nested import flatten
from flaim.weights.formats._pickle_arrays import from_buffer, jax_array, named_dtype, reconstruct, scalar
from flaim.weights.formats._pickle_machine import Machine, key_of

# First bytes of files that torch.save wrote before version 1.6: a pickled number.
MAGIC_OF_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The arrays in a pickle of nested dictionaries."""
    value, end = Machine(data, str(path), FUNCTIONS).run()
    if end != len(data):
        raise CheckpointError(f"{path}: {len(data) - end} bytes follow the end of the pickle, at byte {end}")
    return flatten(value, str(path))


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Empty: the format has no metadata."""
    return {}


def _encode(text: Any, encoding: Any = "utf-8") -> str:
    """Bytes in a pickle of protocol 2, which are written as text; they stay text until the numbers are used."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding than Latin-1")
    return text


def _no_bytes() -> str:
    """How Python 3 writes the bytes of an empty array in protocol 2."""
    return ""


def _dict(items: Any = ()) -> dict:
    """A dictionary from another one, or from a list of pairs, as Python 2 writes it."""
    return items if type(items) is dict else {key_of(key): value for key, value in items}


_OF_NUMPY: dict[str, Callable] = {
    "multiarray._reconstruct": reconstruct,
    "multiarray.scalar": scalar,
    "numeric._frombuffer": from_buffer,
}
FUNCTIONS: dict[str, Callable | None] = {
    "__builtin__.bytes": _no_bytes,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _dict,
    "flax.core.frozen_dict.FrozenDict": _dict,
    "jax._src.array._reconstruct_array": jax_array,
    "jax._src.device_array.reconstruct_device_array": jax_array,
    "numpy.dtype": named_dtype,
    "numpy.ndarray": None,
    **{f"numpy.{core}.{name}": function for core in ("core", "_core") for name, function in _OF_NUMPY.items()},
    **{f"ml_dtypes.{name}": None for name in _mapped.EXTENDED},
}
