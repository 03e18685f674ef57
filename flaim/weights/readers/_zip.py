"""Zip files: stored members are views of the mapped file, compressed ones are unpacked within bounds."""

import zipfile
from pathlib import Path

from flaim.weights.errors import CheckpointError

_HEADER = 30  # bytes of a member's own header, before its name
_DEFLATE = 1032  # the most that deflate can make of a byte
_WHOLE = 100  # the most that we take of it for a member that has to be unpacked as a whole: configurations, HDF5


class Archive:
    """A zip file and its members by name.

    Raises:
        CheckpointError: Two members have one name, or one lies about its size, is encrypted or strangely compressed.
    """

    def __init__(self, path: Path, data: memoryview):
        self.path, self.data = path, data
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
        self.members = {info.filename: info for info in infos}
        if len(self.members) < len(infos):
            raise CheckpointError(f"{path} has two members of the same name")
        for info in infos:
            stored = info.compress_type == zipfile.ZIP_STORED
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(
                    f"{self.name(info.filename)} is encrypted or compressed in a way that is not read"
                )
            limit = info.compress_size * (1 if stored else _DEFLATE)
            if info.compress_size > len(data) or info.file_size > limit:
                raise CheckpointError(
                    f"{self.name(info.filename)} claims to have {info.file_size} bytes, of {info.compress_size} in a "
                    f"file of {len(data)}"
                )

    def name(self, member: str) -> str:
        """What errors call a member."""
        return f"{self.path}, {member[:200]}"

    def start(self, member: str) -> int | None:
        """Where a stored member's bytes begin in the file; None for a compressed one."""
        info = self.members[member]
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        header = self.data[info.header_offset : info.header_offset + _HEADER]
        if bytes(header[:4]) != b"PK\x03\x04":
            raise CheckpointError(f"{self.name(member)} does not begin where the zip file says, {info.header_offset}")
        sizes = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + _HEADER + sizes
        if start + info.file_size > len(self.data):
            raise CheckpointError(f"{self.name(member)} ends beyond the end of the file: it is truncated")
        return start

    def read(self, member: str) -> memoryview:
        """The whole member; a view of the file if it is stored."""
        info, start = self.members[member], self.start(member)
        if start is not None:
            return self.data[start : start + info.file_size]
        if info.file_size > _WHOLE * info.compress_size:
            raise CheckpointError(
                f"{self.name(member)} would unpack to {info.file_size} bytes, of {info.compress_size} in the file"
            )
        return memoryview(self.unpack(member))

    def unpack(self, member: str) -> bytes:
        """The bytes of a compressed member, checked against their checksum; never more than it claims to have."""
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            content = file.read(self.members[member].file_size)
            if file.read(1) or len(content) != self.members[member].file_size:
                raise CheckpointError(f"{self.name(member)} is truncated or corrupt")
            return content
