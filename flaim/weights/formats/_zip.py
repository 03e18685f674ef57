"""Zip files: stored members are views of the mapped file, compressed ones are unpacked within bounds.

Python's own reader uses extra memory and time for each member, and goes through all of them whenever one is opened.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flaim.weights.errors import CheckpointError
from flaim.weights.formats._fields import Fields
from flaim.weights.formats._mapped import intact

_LARGE = 0xFFFFFFFF  # the number needs more than four bytes and is stored elsewhere
_DEFLATE = 1032  # the largest compression ratio of deflate
_WHOLE = 4, 64_000_000  # limits for a member that is unpacked as a whole: compression ratio, and bytes always allowed


class Member(NamedTuple):
    """A file in a zip file: where its header begins, its compressed and uncompressed size, and its checksum."""

    header: int
    stored: bool
    packed: int
    size: int
    checksum: int


class Archive:
    """A zip file and its members by name.

    Raises:
        CheckpointError: Two members have one name, or one has an impossible size, encryption or unknown compression.
    """

    def __init__(self, path: Path, data: memoryview):
        self.path, self.data = path, data
        self.members: dict[str, Member] = {}
        with intact(path, "zip"):
            for name, member in _members(data):
                if name in self.members:
                    raise ValueError(f"two members are called {name[:200]!r}")
                self.members[name] = member
        room = len(data)
        for name, member in self.members.items():
            room -= member.packed
            most = member.packed * _DEFLATE
            if room < 0 or member.size > most or (member.stored and member.size != member.packed):
                raise CheckpointError(
                    f"{self.name(name)} claims to have {member.size} bytes, of {member.packed} in a file of {len(data)}"
                )

    def name(self, member: str) -> str:
        """Name of a member in errors."""
        return f"{self.path}, {member[:200]}"

    def content(self, member: str) -> memoryview:
        """The member's bytes as they are in the file, compressed or not."""
        found = self.members[member]
        with intact(self.path, "zip", f", {member[:200]}"):
            fields = Fields(self.data, found.header)
            if bytes(fields.take(4)) != b"PK\x03\x04":
                raise ValueError(f"it does not begin at byte {found.header}, where the directory says")
            *_, name_size, extra_size = fields.all("5H3I2H")
            fields.take(name_size + extra_size)
            return fields.take(found.packed)

    def read(self, member: str) -> memoryview:
        """The whole member; a view of the file if it is stored."""
        found = self.members[member]
        if found.stored:
            return self.content(member)
        ratio, least = _WHOLE
        if found.size > ratio * found.packed + least:
            raise CheckpointError(
                f"{self.name(member)} would unpack to {found.size} bytes, of {found.packed} in the file"
            )
        return memoryview(self.unpack(member))

    def unpack(self, member: str) -> bytes:
        """The bytes of a compressed member, checked against their checksum; never more than its header announces."""
        found = self.members[member]
        with intact(self.path, "zip", f", {member[:200]}"):
            content = zlib.decompressobj(-15).decompress(self.content(member), found.size + 1)
            if len(content) != found.size or zlib.crc32(content) != found.checksum:
                raise ValueError("its content is truncated or corrupt")
            return content

    def head(self, member: str, size: int) -> bytes:
        """The first bytes of a member."""
        start = self.content(member)[:size]  # deflate never makes data much longer
        return bytes(start) if self.members[member].stored else zlib.decompressobj(-15).decompress(start, size)


def _members(data: memoryview) -> Iterator[tuple[str, Member]]:
    """The members in the directory at the end of the file."""
    tail = bytes(data[-(22 + 0xFFFF) :])
    if (end := tail.rfind(b"PK\x05\x06")) < 0:
        raise ValueError("it has no directory at its end")
    end += len(data) - len(tail)
    fields = Fields(data, end)
    *_, size, start, _ = fields.all("4s4H2IH")
    if end >= 20 and bytes(data[end - 20 : end - 16]) == b"PK\x06\x07":  # zip64: numbers that need eight bytes
        fields.position = Fields(data, end - 12).one("Q")
        signature, *_, size, start = fields.all("4sQ2H2I4Q")
        if signature != b"PK\x06\x06":
            raise ValueError("the directory at its end is not where it should be")
    fields.position, stop = start, start + size
    if stop > end:
        raise ValueError(f"a directory of {size} bytes at {start}, in a file of {len(data)}")
    while fields.position < stop:
        at = fields.position
        signature, _, _, flags, method, _, _, checksum, packed, size = fields.all("4s6H3I")
        name_size, extra_size, note_size, _, _, _, header = fields.all("5H2I")
        if signature != b"PK\x01\x02":
            raise ValueError(f"the directory is damaged at byte {at}")
        name = str(fields.take(name_size), "utf-8", "replace")
        packed, size, header = _large(Fields(fields.take(extra_size)), packed, size, header)
        fields.take(note_size)
        fields.budget.spend(text=name_size)
        if name.endswith("/"):
            continue
        if flags & 1 or method not in (0, 8):
            raise ValueError(f"{name[:200]!r} is encrypted, or compressed in a way that is not read")
        yield name, Member(header, method == 0, packed, size, checksum)


def _large(extra: Fields, packed: int, size: int, header: int) -> tuple[int, int, int]:
    """A member's numbers; those that need eight bytes are in its extra fields."""
    if _LARGE not in (packed, size, header):
        return packed, size, header
    while len(extra.data) - extra.position >= 4:
        kind, length = extra.all("HH")
        field = Fields(extra.take(length))
        if kind == 1:
            size, packed, header = (field.one("Q") if n == _LARGE else n for n in (size, packed, header))
    return packed, size, header
