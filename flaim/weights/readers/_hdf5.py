"""HDF5, as Keras writes it: groups of datasets, and attributes that say what they are.

libhdf5 reads what is about the datasets; the numbers are views of the mapped file, unless they are compressed.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers import _mapped
from flaim.weights.readers._lazy import Lazy
from flaim.weights.readers._nested import MAX_DEPTH

# Filters that h5py has of its own, and how many bytes one can become. For others, libhdf5 would load a library.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: 1032,
    h5py.h5z.FILTER_LZF: 264,
    h5py.h5z.FILTER_SHUFFLE: 1,
    h5py.h5z.FILTER_FLETCHER32: 1,
}
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers, by their paths."""
    return tensors(str(path), data)


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """The attributes of the root (`"attributes"`) and of the groups (`"attributes/..."`), and the model in them."""
    return documents(str(path), data)


def tensors(where: str, data: memoryview) -> dict[str, Any]:
    """The datasets of numbers in the file `where`, of which these are the bytes."""
    file = _open(data)
    datasets = {name: node for name, node in _walk(file, where) if isinstance(node, h5py.Dataset)}
    arrays = ((name, _array(f"{where}, {name}", dataset, data)) for name, dataset in datasets.items())
    return {name: array for name, array in arrays if array is not None}


def documents(where: str, data: memoryview) -> dict[str, Any]:
    """What the groups' attributes say. Of the root's, those that are JSON objects are documents of their own too."""
    found = {}
    for name, node in _walk(_open(data), where):
        attributes = {key: _plain(value) for key, value in node.attrs.items()} if isinstance(node, h5py.Group) else {}
        if attributes:
            found[f"attributes/{name}".rstrip("/")] = attributes
    for key, value in found.get("attributes", {}).items():
        if isinstance(value, str) and value.startswith("{"):
            found[key] = json.loads(value)
    return found


def _open(data: memoryview) -> h5py.File:
    return h5py.File(_Bytes(data), "r")


class _Bytes(io.RawIOBase):
    """A view of bytes as a file, without a copy of them."""

    def __init__(self, data: memoryview):
        self.data, self.position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: len(self.data)}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self.data[self.position : self.position + len(target)]
        target[: len(piece)] = piece
        target[len(piece) :] = bytes(len(target) - len(piece))  # libhdf5 does not look at what it is told
        self.position += len(piece)
        return len(piece)


def _walk(file: h5py.File, where: str) -> Iterator[tuple[str, Any]]:
    """The groups and datasets with their paths; the root's is ""."""
    groups = [("", file["/"])]
    seen = set()
    while groups:
        path, group = groups.pop(0)
        yield path, group
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or path.count("/") > MAX_DEPTH:
            raise CheckpointError(f"{where}, {path[:200]}: a group that is in itself, or in {MAX_DEPTH} others")
        seen.add(address)
        for name in group.id:
            full = f"{path}/{_text(name)}".lstrip("/")
            link = group.id.links.get_info(name).type
            if link != h5py.h5l.TYPE_HARD:
                raise CheckpointError(f"{where}, {full[:200]}: {_LINKS.get(link, 'a link')}, which is not followed")
            kind = h5py.h5o.get_info(group.id, name).type
            if kind == h5py.h5o.TYPE_GROUP:
                groups.append((full, group[name]))
            elif kind == h5py.h5o.TYPE_DATASET:
                yield full, group[name]


def _array(where: str, dataset: h5py.Dataset, data: memoryview) -> np.ndarray | Lazy | None:
    """The dataset's numbers; None for one of text or of nothing."""
    shape = dataset.shape
    if shape is None or dataset.dtype.kind not in "biufc":
        return None
    dtype = _mapped.dtype_of(dataset.dtype.str)
    size, plan = math.prod(shape) * dtype.itemsize, dataset.id.get_create_plist()
    if plan.get_external_count() or plan.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise CheckpointError(f"{where}: its numbers are in another file, which is not read")
    stored = dataset.id.get_storage_size()
    if plan.get_layout() == h5py.h5d.CHUNKED:
        limit = stored
        for i in range(plan.get_nfilters()):
            if (code := plan.get_filter(i)[0]) not in _FILTERS:
                raise CheckpointError(f"{where}: compressed in a way that is not read, HDF5's filter {code}")
            limit *= _FILTERS[code]
    else:
        limit = min(stored, len(data))
    if size > limit or stored > len(data):
        raise CheckpointError(
            f"{where}: shape {shape} and type {dtype} take {size} bytes, {stored} are stored in a file of {len(data)}"
        )
    if not size:
        return np.empty(shape, dtype)
    if plan.get_layout() == h5py.h5d.CONTIGUOUS:
        return _mapped.view(data, dataset.id.get_offset(), dtype, shape)
    return Lazy(shape, dtype, lambda: _unpacked(where, dataset))


def _unpacked(where: str, dataset: h5py.Dataset) -> np.ndarray:
    try:
        return dataset[()]
    except Exception as error:
        raise CheckpointError(f"{where} is corrupt: {str(error)[:200]}") from error


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    """An attribute without numpy's types."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _text(value) if isinstance(value, bytes | str) else value if isinstance(value, int | float) else None
