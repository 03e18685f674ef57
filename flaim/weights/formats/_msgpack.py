"""Flax's msgpack files: nested maps, in which arrays are extension types, and large arrays are split into chunks."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _mapped
from flaim.weights.formats._fields import Budget, Fields
from flaim.weights.formats._lazy import LazyArray
from flaim.weights.formats._nested import MAX_DEPTH, flatten

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # Flax's extensions
_CHUNKED = "__msgpack_chunked_array__"

# Formats by first byte: the encoding of a number, or of the length of text, bytes, extensions, lists and maps.
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_LENGTHS = {
    **dict(zip((0xD9, 0xDA, 0xDB), (("text", ">B"), ("text", ">H"), ("text", ">I")))),
    **dict(zip((0xC4, 0xC5, 0xC6), (("bytes", ">B"), ("bytes", ">H"), ("bytes", ">I")))),
    **dict(zip((0xC7, 0xC8, 0xC9), (("extension", ">B"), ("extension", ">H"), ("extension", ">I")))),
    **dict(zip((0xDC, 0xDD), (("list", ">H"), ("list", ">I")))),
    **dict(zip((0xDE, 0xDF), (("map", ">H"), ("map", ">I")))),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The arrays in Flax's file, as views of it; arrays in chunks are concatenated when they are used."""
    parser = _Parser(data)
    try:
        tree = parser.value()
    except Exception as error:
        raise CheckpointError(
            f"{path} is truncated or corrupt at byte {parser.position} of {len(data)} "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if parser.position != len(data):
        raise CheckpointError(f"{path}: {len(data) - parser.position} bytes follow the end, at byte {parser.position}")
    return flatten(tree, str(path))


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Empty: the format has no metadata."""
    return {}


class _Parser(Fields):
    """Reads one value after another; bytes are views."""

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        first = self.one("B")
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self.one(_NUMBERS[first])
        if first in _LENGTHS:
            kind, code = _LENGTHS[first]
            return self.composite(kind, self.one(code), depth)
        if 0xD4 <= first <= 0xD8:
            return self.composite("extension", 1 << (first - 0xD4), depth)
        if first < 0x90:
            return self.composite("map", first & 0x0F, depth)
        if first < 0xA0:
            return self.composite("list", first & 0x0F, depth)
        if first < 0xC0:
            return self.composite("text", first & 0x1F, depth)
        raise ValueError(f"no value begins with {first:#04x}")

    def composite(self, kind: str, length: int, depth: int) -> Any:
        if kind == "text":
            self.budget.spend(0, length)
            return str(self.take(length), "utf-8")
        if kind == "bytes":
            return self.take(length)
        if kind == "extension":
            code = self.one("b")
            return _extension(code, self.take(length), self.budget)
        if kind == "list":
            return [self.value(depth + 1) for _ in range(length)]
        found: dict[Any, Any] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if type(key) not in (str, int) or key in found:
                raise ValueError(f"a key is a {type(key).__name__}, or there twice")
            found[key] = self.value(depth + 1)
        return _joined(found) if _CHUNKED in found else found


def _extension(code: int, data: memoryview, budget: Budget) -> Any:
    if code == _COMPLEX:
        return None  # a Python number, not a tensor
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"extension {code} is none of Flax's")
    inner = _Parser(data, budget=budget)
    sides, name, content = inner.value(MAX_DEPTH - 2)
    shape, dtype = _mapped.shape_of(sides), _mapped.dtype_of(name)
    size = math.prod(shape) * dtype.itemsize
    if type(content) is not memoryview or size != len(content) or inner.position != len(data):
        raise ValueError(f"an array of shape {shape} and type {dtype}, which takes {size} bytes, has others")
    return _mapped.view(content, 0, dtype, shape) if size else np.empty(shape, dtype)


def _joined(parts: dict[Any, Any]) -> LazyArray:
    """An array from its chunks. Flax writes tuples as maps with the keys "0", "1" and so on."""
    sides, chunks = ([parts[name][str(i)] for i in range(len(parts[name]))] for name in ("shape", "chunks"))
    shape, dtypes = _mapped.shape_of(sides), {chunk.dtype for chunk in chunks}
    if len(dtypes) != 1 or any(chunk.ndim != 1 for chunk in chunks):
        raise ValueError("the pieces of an array do not fit each other")
    if (count := sum(map(len, chunks))) != math.prod(shape):
        raise ValueError(f"the pieces of an array have {count} numbers, its shape is {shape}")
    return LazyArray(shape, dtypes.pop(), lambda: np.concatenate(chunks).reshape(shape))
