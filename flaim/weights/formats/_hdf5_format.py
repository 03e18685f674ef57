"""The structures of HDF5 files: object headers, trees, heaps, shapes and types.

The source is the HDF5 File Format Specification, version 3.0; features that files of numbers do not need are errors.
A file may refer to the same structure many times; the file's budget limits the cost.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flaim.weights.formats import _mapped
from flaim.weights.formats._fields import Budget, Fields

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NOWHERE = (1 << 64) - 1

# Messages in an object's header.
_CONTINUATION = 0x10

# Floating-point types by exponent and mantissa bits.
_FLOATS = {(5, 10): "f2", (8, 23): "f4", (11, 52): "f8", (8, 7): "bfloat16", (4, 3): "float8_e4m3fn"}


class Message(NamedTuple):
    """A message in an object's header; `shared` ones only refer to a message elsewhere."""

    kind: int
    data: memoryview
    shared: bool


class File:
    """The bytes of a file from address 0 on, and a cache of its global heaps."""

    def __init__(self, where: str, data: memoryview):
        self.where, self.budget = where, Budget()
        self.heaps: dict[int, dict[int, memoryview]] = {}
        fields = Fields(data, (starts_at(data) or 0) + 8)
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
        self.data = data[base:]

    def fields(self, data: memoryview, position: int = 0) -> Fields:
        """The fields in some bytes of the file."""
        return Fields(data, position, self.budget)

    def at(self, address: int, signature: bytes = b"") -> Fields:
        """What is at an address, after its signature."""
        fields = self.fields(self.data, address)
        if bytes(fields.take(len(signature))) != signature:
            raise ValueError(f"there is no {signature.decode()} at {address}")
        return fields

    def text(self, data: bytes | memoryview) -> str:
        """Decode a name or other text."""
        self.budget.spend(0, len(data))
        return bytes(data).decode("utf-8", "replace")


def starts_at(data: memoryview) -> int | None:
    """Where the HDF5 content begins: at 0, or after a user block of 512, 1024, 2048, ... bytes."""
    start = 0
    while start < len(data):
        if data[start : start + 8] == SIGNATURE:
            return start
        start = max(512, start * 2)
    return None


# Headers of objects


def of(messages: list[Message], kind: int) -> list[memoryview]:
    """The messages of a kind in an object's header; ValueError if one only refers to a message elsewhere."""
    found = [message for message in messages if message.kind == kind]
    if any(message.shared for message in found):
        raise ValueError("a header that is shared by several objects")
    return [message.data for message in found]


def headers(file: File, address: int) -> list[Message]:
    """The messages of an object's header, with those in its continuations."""
    fields = file.at(address)
    if new := bytes(file.data[address : address + 4]) == b"OHDR":
        _, _, _, _, version, flags = fields.all("6B")
        fields.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
        blocks = [fields.take(fields.integer(1 << (flags & 3)))]
        ordered = bool(flags & 4)
    else:
        version, _, _, _, size = fields.all("BBHII")
        fields.take(4)
        blocks, ordered = [fields.take(size)], False
    if version != (2 if new else 1):
        raise ValueError(f"version {version} of an object's header at {address}")
    messages: list[Message] = []
    for block in blocks:  # grows during the loop
        for message in _in_block(file, block, new, ordered):
            if message.kind == _CONTINUATION:
                start, size = file.fields(message.data).all("QQ")
                view = file.at(start).take(size)
                if new and bytes(view[:4]) != b"OCHK":
                    raise ValueError(f"there is no OCHK at {start}")
                blocks.append(view[4:-4] if new else view)
            else:
                messages.append(message)
    return messages


def _in_block(file: File, block: memoryview, new: bool, ordered: bool) -> Iterator[Message]:
    fields, head = file.fields(block), (6 if ordered else 4) if new else 8
    while len(block) - fields.position >= head:
        kind, size, flags = fields.all("BHB" if new else "HHB")
        fields.take((2 if ordered else 0) if new else 3)
        yield Message(kind, fields.take(size), bool(flags & 2))


# Trees and heaps


def tree(file: File, root: int, kind: int, key_size: int) -> Iterator[tuple[memoryview, int]]:
    """Keys and addresses in the leaves of a B-tree of version 1."""
    nodes, seen = [root], set()
    while nodes:
        address = nodes.pop()
        if address in seen:
            raise ValueError(f"a cyclic tree at {address}")
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


def records(file: File, address: int, kind: int) -> Iterator[memoryview]:
    """The records in a B-tree of version 2."""
    fields = file.at(address, b"BTHD")
    _, found, node_size, size, depth, _, _, root, count, _ = fields.all("BBIHHBBQHQ")
    if found != kind or not size or depth > 16:
        raise ValueError(f"a tree of kind {found}, expected {kind}")
    most = [(node_size - 10) // size]  # records in a node, by its height
    total = list(most)  # records in a node and all nodes below it, by its height
    pointers = [0]  # bytes of a pointer to a node one level below
    width = _width(most[0])
    for height in range(1, depth + 1):
        pointers.append(8 + width + (_width(total[-1]) if height > 1 else 0))
        most.append((node_size - 10 - pointers[-1]) // (size + pointers[-1]))
        total.append((most[-1] + 1) * total[-1] + most[-1])
    nodes, seen = [(root, count, depth)] if root != NOWHERE else [], set()
    while nodes:
        address, count, height = nodes.pop()
        if address in seen:
            raise ValueError(f"a cyclic tree at {address}")
        seen.add(address)
        fields = file.at(address, b"BTIN" if height else b"BTLF")
        fields.take(2)
        yield from [fields.take(size) for _ in range(count)]
        for _ in range(count + 1 if height else 0):
            child = file.fields(fields.take(pointers[height]))
            nodes.append((child.one("Q"), child.integer(width), height - 1))


def _width(largest: int) -> int:
    """Bytes of a number up to `largest`."""
    return (max(largest, 1).bit_length() - 1) // 8 + 1


def heap_object(file: File, heap: int, identifier: memoryview) -> memoryview:
    """An object in a fractal heap."""
    fields = file.at(heap, b"FRHP")
    _, length, filters = fields.all("BHH")
    fields.take(13)
    huge = fields.one("Q")
    fields.position = heap + 110
    columns, first, largest, bits, _, root, rows = fields.all("HQQHHQH")
    if filters or not first or not columns or first & (first - 1) or columns & (columns - 1) or bits > 64:
        raise ValueError("a heap that is compressed or has no size")
    kind = identifier[0] >> 4 & 3
    if kind == 2:  # tiny objects are stored in the identifier itself
        return identifier[1 : 2 + (identifier[0] & 15)]
    place = file.fields(identifier[1:length])
    if kind == 1:  # huge objects are stored outside the heap
        number = place.integer(len(place.data))
        for record in records(file, huge, 1):
            address, size, found = file.fields(record).all("QQQ")
            if found == number:
                return file.at(address).take(size)
        raise ValueError("an object that its heap does not know")
    offset = place.integer((bits + 7) // 8)
    size = place.integer(len(place.data) - place.position)
    start, address = 0, root
    while rows:  # an indirect block: rows of blocks; from row 2 on, the size doubles with each row
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


def global_heap(file: File, address: int) -> dict[int, memoryview]:
    """The objects in a collection of the global heap, by number."""
    if address not in file.heaps:
        fields = file.at(address, b"GCOL")
        fields.take(4)
        size = fields.one("Q")
        fields = file.fields(file.data[: address + size], fields.position)
        found = {}
        while len(fields.data) - fields.position >= 16:
            index, _, _, size = fields.all("HHIQ")
            if not index:  # free space
                break
            start = fields.position
            found[index] = fields.take(size)
            fields.align(start)
        file.heaps[address] = found
    return file.heaps[address]


# Shapes and types


def shape(data: memoryview) -> tuple[int, ...] | None:
    """The shape in a dataspace; None for a null dataspace."""
    fields = Fields(data)
    version, rank, _ = fields.all("BBB")
    if version not in (1, 2) or rank > 32:
        raise ValueError(f"version {version} of a dataspace, of {rank} axes")
    nothing = fields.take(5 if version == 1 else 1)[0] == 2 and version == 2
    return None if nothing else fields.all(f"{rank}Q")


def dtype(data: memoryview) -> np.dtype | None:
    """The dtype of numbers, or V2 for two opaque bytes; None for any other type."""
    fields = Fields(data)
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
    if code == 8 and size == 1:  # an enumeration: h5py's booleans
        return np.dtype(np.bool_)
    return None
