"""HDF5, as Keras writes it: groups of datasets, and attributes that say what they are.

This is a reader of our own for the parts of the format (HDF5 File Format Specification, version 3.0) that files of
numbers use, since a flipped bit can send libhdf5 into an endless loop. Datasets are views of the file, unless they are
cut into chunks. Links that lead out of the file or around in it are refused.
"""

import itertools
import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers import _mapped
from flaim.weights.readers._lazy import Lazy
from flaim.weights.readers._nested import MAX_DEPTH

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NOWHERE = (1 << 64) - 1

# Messages in an object's header.
_SPACE, _LINKS, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOLS, _ATTRIBUTES = 0x0C, 0x10, 0x11, 0x15

_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3
_RATIO = 1032  # the most that deflate can make of a byte

# Exponent and mantissa bits of the types of floating-point numbers.
_FLOATS = {(5, 10): "f2", (8, 23): "f4", (11, 52): "f8", (8, 7): "bfloat16", (4, 3): "float8_e4m3fn"}


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers, by their paths."""
    return tensors(str(path), data)


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """The attributes of the root (`"attributes"`) and of the groups (`"attributes/..."`), and the model in them."""
    return documents(str(path), data)


def tensors(where: str, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers in the file `where`, of which these are the bytes."""
    file = _File(where, data)
    arrays = ((path, _array(file, path, messages)) for path, messages in _walk(file) if _of(messages, _LAYOUT))
    return {path: array for path, array in arrays if array is not None}


def documents(where: str, data: memoryview) -> dict[str, Any]:
    """What the groups' attributes say. Of the root's, those that are JSON objects are documents of their own too."""
    file = _File(where, data)
    found: dict[str, Any] = {}
    for path, messages in _walk(file):
        if not _of(messages, _LAYOUT) and (attributes := dict(_attributes(file, messages))):
            found[f"attributes/{path}".rstrip("/")] = attributes
    for key, value in found.get("attributes", {}).items():
        if isinstance(value, str) and value.startswith("{"):
            found[key] = json.loads(value)
    return found


def starts_at(data: memoryview) -> int | None:
    """Where the file begins: at the start, or after a user's block of 512 bytes, 1024, 2048 and so on."""
    start = 0
    while start < len(data):
        if data[start : start + 8] == SIGNATURE:
            return start
        start = max(512, start * 2)
    return None


class _Message(NamedTuple):
    """A message in an object's header, and whether it only refers to one elsewhere."""

    kind: int
    data: memoryview
    shared: bool


class _Fields:
    """Numbers one after the other."""

    def __init__(self, data: memoryview, position: int = 0):
        self.data, self.position = data, position

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError(f"{size} bytes at {self.position} of {len(self.data)}")
        view = self.data[self.position : end]
        self.position = end
        return view

    def all(self, code: str) -> tuple:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))

    def one(self, code: str) -> Any:
        return self.all(code)[0]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def align(self, start: int) -> None:
        self.position = start + (self.position - start + 7) // 8 * 8


@dataclass
class _File:
    """The bytes that addresses count from the first of, and what has been seen of them."""

    where: str
    data: memoryview
    heaps: dict[int, dict[int, memoryview]] = field(default_factory=dict)
    room: int = 0  # for text: strings may stand for the same bytes many times over
    root: int = 0

    def __post_init__(self) -> None:
        fields = _Fields(self.data, (starts_at(self.data) or 0) + 8)
        version = fields.one("B")
        if version in (0, 1):
            fields.take(4)
            sizes = fields.all("BB")
            fields.take(9 if version == 0 else 13)
            base = fields.one("Q")
            fields.take(24 + 8)
        elif version in (2, 3):
            sizes = fields.all("BB")
            fields.take(1)
            base = fields.one("Q")
            fields.take(16)
        else:
            raise ValueError(f"version {version} of the format")
        if sizes != (8, 8):
            raise ValueError(f"addresses of {sizes[0]} bytes and sizes of {sizes[1]}")
        self.root = fields.one("Q")
        self.room = 4 * len(self.data) + 1_000_000
        self.data = self.data[base:]

    def at(self, address: int, signature: bytes = b"") -> _Fields:
        """What is at an address, after its signature."""
        if address >= len(self.data):
            raise ValueError(f"address {address} in a file of {len(self.data)} bytes")
        fields = _Fields(self.data, address)
        if bytes(fields.take(len(signature))) != signature:
            raise ValueError(f"there is no {signature.decode()} at {address}")
        return fields


# Objects and their headers


def _walk(file: _File) -> Iterator[tuple[str, list[_Message]]]:
    """The groups and datasets with their paths and headers; the root's path is "" ."""
    objects = [("", file.root)]
    groups = set()
    while objects:
        path, address = objects.pop()
        try:
            messages = _messages(file, address)
            is_group = not _of(messages, _LAYOUT)
            if is_group and (address in groups or path.count("/") > MAX_DEPTH):
                raise ValueError("a group that is in two others, in itself or too deep")
            groups.add(address)
            links = _links(file, messages) if is_group else {}
        except CheckpointError:
            raise
        except Exception as error:
            raise _corrupt(file, path, error) from error
        yield path, messages
        objects += [(f"{path}/{name}".lstrip("/"), target) for name, target in reversed(links.items())]


def _corrupt(file: _File, path: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file.where}, {path[:200] or 'root'}: truncated, corrupt or of an unknown kind "
        f"({type(error).__name__}: {str(error)[:200]})"
    )


def _of(messages: list[_Message], kind: int) -> list[memoryview]:
    found = [message for message in messages if message.kind == kind]
    if any(message.shared for message in found):
        raise ValueError("a header that is shared by several objects")
    return [message.data for message in found]


def _messages(file: _File, address: int) -> list[_Message]:
    """The messages of an object's header, with those in its continuations."""
    fields = file.at(address)
    if new := bytes(file.data[address : address + 4]) == b"OHDR":
        _, _, _, _, version, flags = fields.all("6B")
        fields.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
        blocks = [fields.take(fields.number(1 << (flags & 3)))]
        ordered = bool(flags & 4)
    else:
        version, _, _, _, size = fields.all("BBHII")
        fields.take(4)
        blocks, ordered = [fields.take(size)], False
    if version != (2 if new else 1):
        raise ValueError(f"version {version} of an object's header at {address}")
    messages: list[_Message] = []
    room = len(file.data)
    for block in blocks:  # which grows meanwhile
        room -= len(block) + 16
        if room < 0:
            raise ValueError("a header that goes around in a circle")
        for message in _in_block(block, new, ordered):
            if message.kind == _CONTINUATION:
                start, size = _Fields(message.data).all("QQ")
                view = file.at(start).take(size)
                if new and bytes(view[:4]) != b"OCHK":
                    raise ValueError(f"there is no OCHK at {start}")
                blocks.append(view[4:-4] if new else view)
            else:
                messages.append(message)
    return messages


def _in_block(block: memoryview, new: bool, ordered: bool) -> Iterator[_Message]:
    fields, head = _Fields(block), (6 if ordered else 4) if new else 8
    while len(block) - fields.position >= head:
        kind, size, flags = fields.all("BHB" if new else "HHB")
        fields.take((2 if ordered else 0) if new else 3)
        yield _Message(kind, fields.take(size), bool(flags & 2))


# Groups


def _links(file: _File, messages: list[_Message]) -> dict[str, int]:
    """The objects in a group: names and addresses, in the order in which they were made where that is known."""
    for data in _of(messages, _SYMBOLS):
        return _symbols(file, *_Fields(data).all("QQ"))
    links = [_link(data) for data in _of(messages, _LINK)]
    for data in _of(messages, _LINKS):
        fields = _Fields(data)
        _, flags = fields.all("BB")
        fields.take(8 if flags & 1 else 0)
        heap, index = fields.all("QQ")
        if heap != _NOWHERE:
            links += [_link(_heap_object(file, heap, record[4:])) for record in _records(file, index, 5)]
    return {name: address for _, name, address in sorted(links)}


def _link(data: memoryview) -> tuple[int, str, int]:
    """When a link was made, its name, and the address that it leads to."""
    fields = _Fields(data)
    _, flags = fields.all("BB")
    kind = fields.one("B") if flags & 8 else 0
    order = fields.one("Q") if flags & 4 else 0
    fields.take(1 if flags & 0x10 else 0)
    name = _text(fields.take(fields.number(1 << (flags & 3))))
    if kind:
        what = {1: "a soft link", 64: "a link to another file"}.get(kind, f"a link of kind {kind}")
        raise ValueError(f"{name[:200]!r} is {what}, which is not followed")
    return order, name, fields.one("Q")


def _symbols(file: _File, tree: int, heap: int) -> dict[str, int]:
    """The objects in a group of the older form: a tree of tables, with the names in a heap."""
    fields = file.at(heap, b"HEAP")
    fields.take(4)
    size, _, start = fields.all("QQQ")
    names = bytes(file.at(start).take(size)) if size else b""
    found = {}
    for _, address in _tree(file, tree, 0, 8):
        table = file.at(address, b"SNOD")
        _, _, count = table.all("BBH")
        for _ in range(count):
            offset, target, cache, *_ = table.all("QQII16s")
            end = names.find(b"\0", offset)
            name = _text(names[offset:end])
            if cache == 2 or end < 0 or not name:
                raise ValueError(f"{name[:200]!r} is a soft link, which is not followed" if cache == 2 else "no name")
            found[name] = target
    return found


def _tree(file: _File, root: int, kind: int, key_size: int) -> Iterator[tuple[memoryview, int]]:
    """Keys and addresses in the leaves of a B-tree of version 1."""
    nodes, seen = [root], set()
    while nodes:
        address = nodes.pop()
        if address in seen:
            raise ValueError(f"a tree that goes around in a circle, at {address}")
        seen.add(address)
        fields = file.at(address, b"TREE")
        found, level, count, _, _ = fields.all("BBHQQ")
        if found != kind:
            raise ValueError(f"a tree of kind {found}, expected {kind}")
        children = [(fields.take(key_size), fields.one("Q")) for _ in range(count)]
        if level:
            nodes += [child for _, child in reversed(children)]
        else:
            yield from children


def _records(file: _File, address: int, kind: int) -> Iterator[memoryview]:
    """The records in a B-tree of version 2."""
    fields = file.at(address, b"BTHD")
    _, found, node_size, size, depth, _, _, root, count, _ = fields.all("BBIHHBBQHQ")
    if found != kind or not size or depth > 16:
        raise ValueError(f"a tree of kind {found}, expected {kind}")
    most = [(node_size - 10) // size]  # records in a node, by its height
    total = list(most)  # and in what is below it
    pointers = [0]  # bytes of a pointer to a node that is lower by one
    width = _width(most[0])
    for height in range(1, depth + 1):
        pointers.append(8 + width + (_width(total[-1]) if height > 1 else 0))
        most.append((node_size - 10 - pointers[-1]) // (size + pointers[-1]))
        total.append((most[-1] + 1) * total[-1] + most[-1])
    nodes, seen = [(root, count, depth)] if root != _NOWHERE else [], set()
    while nodes:
        address, count, height = nodes.pop()
        if address in seen:
            raise ValueError(f"a tree that goes around in a circle, at {address}")
        seen.add(address)
        fields = file.at(address, b"BTIN" if height else b"BTLF")
        fields.take(2)
        yield from [fields.take(size) for _ in range(count)]
        for _ in range(count + 1 if height else 0):
            child = _Fields(fields.take(pointers[height]))
            nodes.append((child.one("Q"), child.number(width), height - 1))


def _width(largest: int) -> int:
    """Bytes of a number up to `largest`."""
    return (max(largest, 1).bit_length() - 1) // 8 + 1


def _heap_object(file: _File, heap: int, identifier: memoryview) -> memoryview:
    """An object in a fractal heap."""
    fields = file.at(heap, b"FRHP")
    _, length, filters = fields.all("BHH")
    fields.position = heap + 110
    columns, first, largest, bits, _, root, rows = fields.all("HQQHHQH")
    if filters or not first or not columns or first & (first - 1) or columns & (columns - 1) or bits > 64:
        raise ValueError("a heap that is compressed or has no size")
    kind = identifier[0] >> 4 & 3
    if kind == 2:  # so small that the identifier itself has it
        return identifier[1 : 2 + (identifier[0] & 15)]
    if kind:
        raise ValueError("an object in a heap that is too large")
    place = _Fields(identifier[1:length])
    offset = place.number((bits + 7) // 8)
    size = place.number(len(place.data) - place.position)
    start, address = 0, root
    while rows:  # an indirect block: rows of blocks, from the second on each of twice the size of the one before
        fields = file.at(address, b"FHIB")
        fields.take(1 + 8 + (bits + 7) // 8)
        for row in range(rows):
            block = first << max(row - 1, 0)
            if offset - start < block * columns:
                break
            start += block * columns
        else:
            raise ValueError("an object outside of its heap")
        column = (offset - start) // block
        start += column * block
        fields.take(8 * (row * columns + column))
        address = fields.one("Q")
        rows = 0 if block <= largest else (block // (first * columns)).bit_length()
    return file.at(address, b"FHDB").data[address + offset - start :][:size]


# Attributes


def _attributes(file: _File, messages: list[_Message]) -> Iterator[tuple[str, Any]]:
    """Names and values; None for values that are neither text nor numbers."""
    found = [message.data for message in messages if message.kind == _ATTRIBUTE and not message.shared]
    for data in _of(messages, _ATTRIBUTES):
        fields = _Fields(data)
        _, flags = fields.all("BB")
        fields.take(2 if flags & 1 else 0)
        heap, index = fields.all("QQ")
        if heap != _NOWHERE:
            found += [_heap_object(file, heap, record[:8]) for record in _records(file, index, 8)]
    for data in found:
        yield _attribute(file, data)


def _attribute(file: _File, data: memoryview) -> tuple[str, Any]:
    fields = _Fields(data)
    version, flags, name_size, type_size, space_size = fields.all("BBHHH")
    fields.take(1 if version == 3 else 0)
    parts = []
    for size in (name_size, type_size, space_size):
        start = fields.position
        parts.append(fields.take(size))
        if version == 1:
            fields.align(start)
    name = _text(bytes(parts[0]).rstrip(b"\0"))
    shape = _shape(parts[2])
    if flags & 3 or shape is None:  # a type that is elsewhere, or no value
        return name, None
    values = [_value(file, parts[1], fields) for _ in range(math.prod(shape))] if _has_value(parts[1]) else None
    return name, values[0] if values is not None and shape == () else values


def _has_value(kind: memoryview) -> bool:
    code = kind[0] & 15
    return code in (0, 1, 3) or (code == 9 and kind[1] & 15 == 1)


def _value(file: _File, kind: memoryview, fields: _Fields) -> Any:
    """The next number or string, of a type."""
    code, size = kind[0] & 15, struct.unpack("<I", kind[4:8])[0]
    if not size:
        raise ValueError("a type without a size")
    if code == 3:
        text = bytes(fields.take(size)).partition(b"\0")[0]
    elif code == 9:
        length, heap, index = fields.all("IQI")
        text = bytes(_global(file, heap)[index][:length]) if length else b""
        file.room -= length
        if file.room < 0:
            raise ValueError("the same text many times over")
    else:
        dtype = _dtype(kind)
        return None if dtype is None else np.frombuffer(fields.take(dtype.itemsize), dtype)[0].item()
    return _text(text)


def _global(file: _File, address: int) -> dict[int, memoryview]:
    """The objects in a collection of the global heap, by number."""
    if address not in file.heaps:
        fields = file.at(address, b"GCOL")
        fields.take(4)
        size = fields.one("Q")
        fields = _Fields(file.data[: address + size], fields.position)
        found = {}
        while len(fields.data) - fields.position >= 16:
            index, _, _, size = fields.all("HHIQ")
            if not index:  # what is free
                break
            start = fields.position
            found[index] = fields.take(size)
            fields.align(start)
        file.heaps[address] = found
    return file.heaps[address]


def _text(value: bytes | memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")


# Datasets


def _shape(data: memoryview) -> tuple[int, ...] | None:
    """The shape in a dataspace; None where it is for nothing."""
    fields = _Fields(data)
    version, rank, _ = fields.all("BBB")
    if version not in (1, 2) or rank > 32:
        raise ValueError(f"version {version} of a dataspace, of {rank} axes")
    nothing = fields.take(5 if version == 1 else 1)[0] == 2 and version == 2
    return None if nothing else fields.all(f"{rank}Q")


def _dtype(data: memoryview) -> np.dtype | None:
    """The type of numbers, two bytes that nobody says the meaning of included; None for any other."""
    fields = _Fields(data)
    first, flags, _, _, size = fields.all("BBBBI")
    code = first & 15
    order: Any = ">" if flags & 1 else "<"
    if code == 0 and size in (1, 2, 4, 8):
        return np.dtype(f"{order}{'i' if flags & 8 else 'u'}{size}")
    if code == 1 and not flags & 64:
        _, precision, _, exponent, _, mantissa = fields.all("HHBBBB")
        name = _FLOATS.get((exponent, mantissa))
        dtype = None if name is None else _mapped.dtype_of(name)
        return dtype.newbyteorder(order) if dtype is not None and dtype.itemsize * 8 == size * 8 == precision else None
    if code == 5 and size == 2:
        return np.dtype("V2")
    if code == 8 and size == 1:  # names for numbers: h5py's truth values
        return np.dtype(np.bool_)
    return None


def _array(file: _File, path: str, messages: list[_Message]) -> np.ndarray | Lazy | None:
    """A dataset's numbers; None for one of text or of nothing."""
    try:
        return _dataset(file, path, messages)
    except CheckpointError:
        raise
    except Exception as error:
        raise _corrupt(file, path, error) from error


def _dataset(file: _File, path: str, messages: list[_Message]) -> np.ndarray | Lazy | None:
    (layout,), (space,), (kind,) = (_of(messages, kind) for kind in (_LAYOUT, _SPACE, _TYPE))
    shape, dtype = _shape(space), _dtype(kind)
    if shape is None or dtype is None:
        return None
    if dtype.kind == "V":  # numpy knows no bfloat16, and Keras says in an attribute that it is
        if dict(_attributes(file, messages)).get("dtype") != "bfloat16":
            return None
        dtype = _mapped.EXTENDED["bfloat16"]
    if _of(messages, _EXTERNAL):
        raise ValueError("its numbers are in another file, which is not read")
    size = math.prod(shape) * dtype.itemsize
    fields = _Fields(layout)
    version, form = fields.all("BB")
    if version not in (3, 4) or form not in (0, 1, 2):
        raise ValueError(f"a layout of version {version} and class {form}")
    if form == 2:
        return _in_chunks(file, path, messages, shape, dtype, fields, version)
    if _of(messages, _FILTERS):
        raise ValueError("it is compressed as a whole")
    address, stored = (fields.position + 2, fields.one("H")) if form == 0 else fields.all("QQ")
    if size > stored or size > len(file.data):
        raise ValueError(f"shape {shape} and type {dtype} take {size} bytes, {stored} are stored")
    if not size:
        return np.empty(shape, dtype)
    return _mapped.view(layout if form == 0 else file.data, address, dtype, shape)


class _Chunk(NamedTuple):
    offset: tuple[int, ...]
    data: memoryview
    skipped: int  # filters, as bits


def _in_chunks(
    file: _File,
    path: str,
    messages: list[_Message],
    shape: tuple[int, ...],
    dtype: np.dtype,
    fields: _Fields,
    version: int,
) -> Lazy:
    if version != 3:
        raise ValueError("chunks in an order that only the newest files have")
    rank, tree = fields.all("BQ")
    *sides, width = fields.all(f"{rank}I")
    if len(sides) != len(shape) or not all(sides) or width != dtype.itemsize:
        raise ValueError(f"chunks of shape {tuple(sides)} for an array of shape {shape}")
    filters = _filters(messages)
    whole = math.prod(sides) * dtype.itemsize
    limit = _RATIO if _DEFLATE in filters else 1
    chunks = []
    room = len(file.data)
    for key, address in _tree(file, tree, 1, 8 + 8 * rank) if tree != _NOWHERE else ():
        stored, skipped, *offset, _ = struct.unpack(f"<II{rank}Q", key)
        room -= stored
        if room < 0 or whole > stored * limit + 64:
            raise ValueError(f"chunks of {whole} bytes, {stored} of which are stored")
        chunks.append(_Chunk(tuple(offset), file.at(address).take(stored), skipped))
    expected = math.prod(-(-side // chunk) for side, chunk in zip(shape, sides))
    places = itertools.product(*(range(0, side, chunk) for side, chunk in zip(shape, sides)))
    if len(chunks) != expected or {chunk.offset for chunk in chunks} != set(places):
        raise ValueError(f"{len(chunks)} chunks, expected {expected}")

    def load() -> np.ndarray:
        array = np.empty(shape, dtype)
        for chunk in chunks:
            try:
                values = np.frombuffer(_unpacked(chunk, filters, whole, dtype.itemsize), dtype).reshape(sides)
            except Exception as error:
                raise _corrupt(file, path, error) from error
            target = array[tuple(slice(start, start + side) for start, side in zip(chunk.offset, sides))]
            target[...] = values[tuple(map(slice, target.shape))]
        return array

    return Lazy(shape, dtype, load)


def _filters(messages: list[_Message]) -> list[int]:
    """The filters that chunks went through, in this order."""
    found = []
    for data in _of(messages, _FILTERS):
        fields = _Fields(data)
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


def _unpacked(chunk: _Chunk, filters: list[int], size: int, width: int) -> bytes | memoryview:
    data: bytes | memoryview = chunk.data
    for i, code in reversed(list(enumerate(filters))):
        if chunk.skipped >> i & 1:
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
