"""The values that a pickle may create: names, and arrays and dtypes, whose state is set in a second step."""

import math
import re
from typing import Any

import numpy as np

from flaim.weights.formats import _mapped
from flaim.weights.formats._lazy import LazyArray


class Name(str):
    """A name in a pickle, `"module.name"`; nothing is imported for it."""


class Array:
    """An array that a pickle builds in two steps: first it is empty, then it gets its state."""

    def __init__(self, value: np.ndarray | LazyArray | None = None):
        self.value = value


class DType:
    """A dtype that a pickle builds in two steps: first it has a name, then it gets its byte order."""

    def __init__(self, value: np.dtype):
        self.value = value


def reconstruct(subtype: Any, shape: Any, code: Any) -> Array:
    """numpy's `_reconstruct`: an array without its state."""
    if subtype != "numpy.ndarray" or type(subtype) is not Name:
        raise ValueError("an array of another class than numpy.ndarray")
    return Array()


def array_of(state: Any) -> np.ndarray | LazyArray:
    """The array of a state that numpy's `__setstate__` takes."""
    version, shape, dtype, fortran, data = state
    if version != 1 or isinstance(data, list):
        raise ValueError("an array of objects")
    return _from_bytes(data, dtype, shape, "F" if fortran is True else "C")


def from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """numpy's `_frombuffer`."""
    return Array(_from_bytes(data, dtype, shape, order))


def scalar(dtype: Any, data: Any) -> Array:
    """numpy's `scalar`, as an array without axes."""
    return Array(_from_bytes(data, dtype, (), "C"))


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | LazyArray:
    """An array from bytes, or from text in which each character is one byte."""
    if not isinstance(dtype, DType) or not isinstance(data, str | memoryview):
        raise ValueError("an array's state is not numpy's")
    shape, kind = _mapped.shape_of(shape), dtype.value
    if (size := math.prod(shape) * kind.itemsize) != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {shape} and type {kind}, which takes {size}")
    if isinstance(data, str):
        text = data
        return LazyArray(shape, kind, lambda: _mapped.view(memoryview(text.encode("latin-1")), 0, kind, shape, order))
    return _mapped.view(data, 0, kind, shape, order) if size else np.empty(shape, kind)


def named_dtype(name: Any, align: Any = False, copy: Any = False) -> DType:
    """numpy's `dtype(name)`, or a type of ml_dtypes."""
    if type(name) is Name:
        return DType(_mapped.EXTENDED[name.rpartition(".")[2]])
    if type(name) is not str or not re.fullmatch(r"[<>=|]?[a-z]\d{1,2}", name):
        raise ValueError("a type of other things than numbers")
    return DType(_mapped.dtype_of(name))


def dtype_of_state(dtype: np.dtype, state: Any) -> np.dtype:
    """The dtype with the byte order of a state that numpy's `dtype.__setstate__` takes."""
    _, order, subtype, names, fields, *_ = state
    if (subtype, names, fields) != (None, None, None) or order not in ("<", ">", "=", "|"):
        raise ValueError("a type of other things than numbers")
    return dtype if order in "|=" else dtype.newbyteorder(order)


def jax_array(function: Any, arguments: Any, state: Any, notes: Any) -> Array:
    """JAX's `_reconstruct_array`, from the parts of numpy's array."""
    if type(function) is not Name or not function.endswith("._reconstruct"):
        raise ValueError("a JAX array that is not made of numpy's")
    return Array(array_of(state))
