"""HDF5, as Keras writes it: groups of datasets, with attributes that describe them.

This is our own reader because a flipped bit can send libhdf5 into an endless loop; `_hdf5_format` reads the structures
of the format. Datasets are views of the file unless they are chunked. Soft links, external links and cycles are errors.
"""

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _hdf5_format as hdf5
from flaim.weights.formats import _json, _mapped
from flaim.weights.formats._fields import Fields
from flaim.weights.formats._lazy import LazyArray
from flaim.weights.formats._nested import MAX_DEPTH

# Messages in an object's header.
_SPACE, _LINKS, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B
_ATTRIBUTE, _SYMBOLS, _ATTRIBUTES = 0x0C, 0x11, 0x15

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_RATIO = 1032  # the largest compression ratio of deflate


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers, by their paths."""
    return tensors(str(path), data)


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """The attributes of root (`"attributes"`) and groups (`"attributes/..."`), and the model configuration in them."""
    return documents(str(path), data)


def tensors(where: str, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers in the bytes of the file `where`."""
    with _place(where, ""):
        file = hdf5.File(where, data)
    found = {}
    for path, messages in _walk(file):
        if hdf5.of(messages, _LAYOUT):
            with _place(file.where, path):
                found[path] = _dataset(file, path, messages)
    return {path: array for path, array in found.items() if array is not None}


def documents(where: str, data: memoryview) -> dict[str, Any]:
    """The groups' attributes. The root's attributes that are JSON objects are also separate documents, parsed."""
    with _place(where, ""):
        file = hdf5.File(where, data)
    found: dict[str, Any] = {}
    for path, messages in _walk(file):
        if not hdf5.of(messages, _LAYOUT):
            with _place(file.where, path):
                if attributes := dict(_attributes(file, messages)):
                    found[f"attributes/{path}".rstrip("/")] = attributes
    for key, value in found.get("attributes", {}).items():
        if isinstance(value, str) and value.startswith("{"):
            with _place(file.where, key):
                found[key] = _json.parse(value)
    return found


# Objects


def _walk(file: hdf5.File) -> Iterator[tuple[str, list[hdf5.Message]]]:
    """The groups and datasets with their paths and headers; the root's path is "" ."""
    objects = [("", file.root)]
    groups = set()
    while objects:
        path, address = objects.pop()
        with _place(file.where, path):
            messages = hdf5.headers(file, address)
            links = {}
            if not hdf5.of(messages, _LAYOUT):
                if address in groups or path.count("/") > MAX_DEPTH:
                    raise ValueError("a group that is in two others, in itself or too deep")
                groups.add(address)
                links = _links(file, messages)
            for name, target in reversed(links.items()):
                file.budget.spend(1, len(path))
                objects.append((f"{path}/{name}".lstrip("/"), target))
        yield path, messages


@contextmanager
def _place(where: str, path: str) -> Iterator[None]:
    """Add the file and the place in it to errors from damaged content."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{where}, {path[:200] or 'root'}: truncated, corrupt or of an unknown kind "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _links(file: hdf5.File, messages: list[hdf5.Message]) -> dict[str, int]:
    """The objects in a group: names and addresses, in order of creation if the file has it."""
    for data in hdf5.of(messages, _SYMBOLS):
        return _symbols(file, *file.fields(data).all("QQ"))
    links = [_link(file, data) for data in hdf5.of(messages, _LINK)]
    for data in hdf5.of(messages, _LINKS):
        fields = file.fields(data)
        _, flags = fields.all("BB")
        fields.take(8 if flags & 1 else 0)
        heap, index = fields.all("QQ")
        if heap != hdf5.NOWHERE:
            links += [_link(file, hdf5.heap_object(file, heap, record[4:])) for record in hdf5.records(file, index, 5)]
    return {name: address for _, name, address in sorted(links)}


def _link(file: hdf5.File, data: memoryview) -> tuple[int, str, int]:
    """A link's creation order, name and target address."""
    fields = file.fields(data)
    _, flags = fields.all("BB")
    kind = fields.one("B") if flags & 8 else 0
    order = fields.one("Q") if flags & 4 else 0
    fields.take(1 if flags & 0x10 else 0)
    name = file.text(fields.take(fields.integer(1 << (flags & 3))))
    if kind:
        what = {1: "a soft link", 64: "a link to another file"}.get(kind, f"a link of kind {kind}")
        raise ValueError(f"{name[:200]!r} is {what}, which is not followed")
    return order, name, fields.one("Q")


def _symbols(file: hdf5.File, tree: int, heap: int) -> dict[str, int]:
    """The objects in a group of the older format: a tree of tables, with the names in a heap."""
    fields = file.at(heap, b"HEAP")
    fields.take(4)
    size, _, start = fields.all("QQQ")
    file.budget.spend(0, size)
    names = bytes(file.at(start).take(size)) if size else b""
    found = {}
    for _, address in hdf5.tree(file, tree, 0, 8):
        table = file.at(address, b"SNOD")
        _, _, count = table.all("BBH")
        for _ in range(count):
            offset, target, cache, *_ = table.all("QQII16s")
            end = names.find(b"\0", offset)
            name = file.text(names[offset:end])
            if cache == 2 or end < 0 or not name:
                raise ValueError(f"{name[:200]!r} is a soft link, which is not followed" if cache == 2 else "no name")
            found[name] = target
    return found


# Attributes


def _attributes(file: hdf5.File, messages: list[hdf5.Message]) -> Iterator[tuple[str, Any]]:
    """Names and values; None for values that are neither text nor numbers."""
    found = [message.data for message in messages if message.kind == _ATTRIBUTE and not message.shared]
    for data in hdf5.of(messages, _ATTRIBUTES):
        fields = file.fields(data)
        _, flags = fields.all("BB")
        fields.take(2 if flags & 1 else 0)
        heap, index = fields.all("QQ")
        if heap != hdf5.NOWHERE:
            found += [hdf5.heap_object(file, heap, record[:8]) for record in hdf5.records(file, index, 8)]
    for data in found:
        yield _attribute(file, data)


def _attribute(file: hdf5.File, data: memoryview) -> tuple[str, Any]:
    fields = file.fields(data)
    version, flags, name_size, type_size, space_size = fields.all("BBHHH")
    fields.take(1 if version == 3 else 0)
    parts = []
    for size in (name_size, type_size, space_size):
        start = fields.position
        parts.append(fields.take(size))
        if version == 1:
            fields.align(start)
    name = file.text(bytes(parts[0]).rstrip(b"\0"))
    shape = hdf5.shape(parts[2])
    if flags & 3 or shape is None:  # the type is stored elsewhere, or there is no value
        return name, None
    values = _values(file, parts[1], math.prod(shape), fields)
    return name, values[0] if values is not None and shape == () else values


def _values(file: hdf5.File, kind: memoryview, count: int, fields: Fields) -> list | None:
    """Numbers or strings; None for values of other types."""
    code = kind[0] & 15
    if code == 3:
        size = struct.unpack("<I", kind[4:8])[0]
        return [file.text(bytes(fields.take(size)).partition(b"\0")[0]) for _ in range(count)]
    if code == 9 and kind[1] & 15 == 1:  # the strings are in a heap
        places = (fields.all("IQI") for _ in range(count))
        return [file.text(hdf5.global_heap(file, heap)[i][:size] if size else b"") for size, heap, i in places]
    dtype = hdf5.dtype(kind)
    if dtype is None or dtype.kind == "V":
        return None
    file.budget.spend(count)
    return np.frombuffer(fields.take(count * dtype.itemsize), dtype).tolist()


# Datasets


def _dataset(file: hdf5.File, path: str, messages: list[hdf5.Message]) -> np.ndarray | LazyArray | None:
    (layout,), (space,), (kind,) = (hdf5.of(messages, kind) for kind in (_LAYOUT, _SPACE, _TYPE))
    shape, dtype = hdf5.shape(space), hdf5.dtype(kind)
    if shape is None or dtype is None:
        return None
    if dtype.kind == "V":  # HDF5 has no bfloat16; Keras marks it with an attribute
        if dict(_attributes(file, messages)).get("dtype") != "bfloat16":
            return None
        dtype = _mapped.EXTENDED["bfloat16"]
    if hdf5.of(messages, _EXTERNAL):
        raise ValueError("its numbers are in another file, which is not read")
    size = math.prod(shape) * dtype.itemsize
    fields = file.fields(layout)
    version, form = fields.all("BB")
    if version not in (3, 4, 5) or form not in (0, 1, 2):
        raise ValueError(f"a layout of version {version} and class {form}")
    if form == 2:
        return _in_chunks(file, path, messages, shape, dtype, fields, version)
    if hdf5.of(messages, _FILTERS):
        raise ValueError("it is compressed as a whole")
    address, stored = (fields.position + 2, fields.one("H")) if form == 0 else fields.all("QQ")
    if size > stored or size > len(file.data):
        raise ValueError(f"shape {shape} and type {dtype} take {size} bytes, {stored} are stored")
    if not size:
        return np.empty(shape, dtype)
    return _mapped.view(layout if form == 0 else file.data, address, dtype, shape)


class _Chunk(NamedTuple):
    """A chunk's offset in the array, its address and size in the file, and a bit mask of filters that it skipped."""

    offset: tuple[int, ...]
    address: int
    stored: int
    skipped: int


def _in_chunks(
    file: hdf5.File,
    path: str,
    messages: list[hdf5.Message],
    shape: tuple[int, ...],
    dtype: np.dtype,
    fields: Fields,
    version: int,
) -> LazyArray:
    if version == 3:
        rank, address = fields.all("BQ")
        *sides, width = fields.all(f"{rank}I")
    else:
        flags, rank, size = fields.all("BBB")
        *sides, width = (fields.integer(size) for _ in range(rank))
    if len(sides) != len(shape) or not all(sides) or width != dtype.itemsize:
        raise ValueError(f"chunks of shape {tuple(sides)} for an array of shape {shape}")
    filters = _filters(file, messages)
    whole = math.prod(sides) * dtype.itemsize
    places = itertools.product(*(range(0, side, chunk) for side, chunk in zip(shape, sides)))
    if version == 3:
        found = _chunks_in_tree(file, address, rank)
    else:
        if flags & 1 and filters:
            raise ValueError("chunks at the border that are not compressed while others are")
        rows = _rows_of_chunks(file, fields, whole, filtered=bool(flags & 2))
        found = (_Chunk(place, *row) for place, row in zip(places, rows))
    limit = _RATIO if _DEFLATE in filters else 1
    room, chunks = len(file.data), {}
    for chunk in found:
        room -= chunk.stored
        if room < 0 or whole > chunk.stored * limit + 64:
            raise ValueError(f"chunks of {whole} bytes, {chunk.stored} of which are stored")
        chunks[chunk.offset] = file.at(chunk.address).take(chunk.stored), chunk.skipped
    expected = math.prod(-(-side // chunk) for side, chunk in zip(shape, sides))
    right = all(n % chunk == 0 and n < side for at in chunks for n, chunk, side in zip(at, sides, shape))
    if len(chunks) != expected or not right:
        raise ValueError(f"{len(chunks)} chunks, expected {expected}")

    def load() -> np.ndarray:
        array = np.empty(shape, dtype)
        for offset, (data, skipped) in chunks.items():
            with _place(file.where, path):
                values = np.frombuffer(_unpacked(data, skipped, filters, whole, dtype.itemsize), dtype).reshape(sides)
            target = array[tuple(slice(start, start + side) for start, side in zip(offset, sides))]
            target[...] = values[tuple(map(slice, target.shape))]
        return array

    return LazyArray(shape, dtype, load)


def _chunks_in_tree(file: hdf5.File, address: int, rank: int) -> Iterator[_Chunk]:
    """Chunks as HDF5 1.8 stores them."""
    for key, at in hdf5.tree(file, address, 1, 8 + 8 * rank) if address != hdf5.NOWHERE else ():
        stored, skipped, *offset, _ = file.fields(key).all(f"II{rank}Q")
        yield _Chunk(tuple(offset), at, stored, skipped)


def _rows_of_chunks(file: hdf5.File, fields: Fields, whole: int, filtered: bool) -> Iterator[tuple[int, int, int]]:
    """Address, size and skipped filters of chunks in array order, as newer files store arrays of fixed shape."""
    index = fields.one("B")
    if index == 1:  # a single chunk
        size, skipped = fields.all("QI") if filtered else (whole, 0)
        yield fields.one("Q"), size, skipped
    elif index == 2:  # consecutive chunks
        yield from zip(itertools.count(fields.one("Q"), whole), itertools.repeat(whole), itertools.repeat(0))
    elif index == 3:
        fields.take(1)
        yield from _fixed_array(file, fields.one("Q"), whole)
    else:
        raise ValueError("chunks of an array that can grow, in an order that only newer files have")


def _fixed_array(file: hdf5.File, address: int, whole: int) -> Iterator[tuple[int, int, int]]:
    _, filtered, width, bits, count, block = file.at(address, b"FAHD").all("4B2Q")
    fields = file.at(block, b"FADB")
    fields.take(10)
    page = 1 << bits
    if count > page:  # a bit mask of the pages in use, and a checksum
        fields.take((-(-count // page) + 7) // 8 + 4)
    for i in range(count):
        if i and i % page == 0:
            fields.take(4)  # a page's checksum
        at = fields.one("Q")
        size, skipped = (fields.integer(width - 12), fields.one("I")) if filtered else (whole, 0)
        yield at, size, skipped


def _filters(file: hdf5.File, messages: list[hdf5.Message]) -> list[int]:
    """The filters that were applied to the chunks, in order."""
    found = []
    for data in hdf5.of(messages, _FILTERS):
        fields = file.fields(data)
        version, count = fields.all("BB")
        fields.take(6 if version == 1 else 0)
        for _ in range(count):
            code = fields.one("H")
            name = fields.one("H") if version == 1 or code >= 256 else 0
            _, values = fields.all("HH")
            fields.take((name + 7) // 8 * 8 if version == 1 else name)
            fields.take(4 * (values + (values % 2 if version == 1 else 0)))
            if code not in (_DEFLATE, _SHUFFLE, _FLETCHER) or code in found:
                raise ValueError(f"it is compressed in a way that is not read, HDF5's filter {code}")
            found.append(code)
    return found


def _unpacked(data: bytes | memoryview, skipped: int, filters: list[int], size: int, width: int) -> bytes | memoryview:
    """The bytes of a chunk after undoing the filters."""
    for i, code in reversed(list(enumerate(filters))):
        if skipped >> i & 1:
            continue
        if code == _DEFLATE:
            data = zlib.decompressobj().decompress(data, size + 4)
        elif code == _SHUFFLE:  # the first bytes of all numbers, then the second ones
            data = np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
        else:
            data = data[:-4]  # a checksum
    if len(data) != size:
        raise ValueError(f"a chunk has {len(data)} bytes, expected {size}")
    return data
