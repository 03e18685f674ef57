"""Write checkpoints to disk: safetensors files tensor by tensor, and folders that always hold a complete checkpoint."""

import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import ml_dtypes
import numpy as np

from flaim.weights.converters.native import CONFIG, INDEX, WEIGHTS
from flaim.weights.errors import CheckpointError

MAX_SHARD_SIZE = 5 * 10**9  # bytes, the usual limit on the Hub

_SHARD = re.compile(r"model(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")
_DTYPES = {
    np.dtype(dtype): name
    for dtype, name in (
        (np.float64, "F64"),
        (np.int64, "I64"),
        (np.float32, "F32"),
        (np.float16, "F16"),
        (ml_dtypes.bfloat16, "BF16"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        (ml_dtypes.float8_e5m2, "F8_E5M2"),
    )
}


class Tensor(NamedTuple):
    """An array to write, with the order of its axes and the dtype in the file; None keeps the array's."""

    value: Any
    axes: tuple[int, ...] | None = None
    as_dtype: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file."""
        return self.value.shape if self.axes is None else tuple(self.value.shape[i] for i in self.axes)

    @property
    def dtype(self) -> np.dtype:
        """The dtype in the file."""
        return np.dtype(self.as_dtype or self.value.dtype)

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def numbers(self) -> np.ndarray:
        """The array as it is written; the only copy in memory."""
        value = self.value
        if isinstance(value, jax.Array) and value.is_fully_replicated:
            # A JAX array keeps its host copy as long as it lives, so make the copy from another array of the same data.
            value = value.addressable_data(0)
        array = np.asarray(value)
        array = array if self.axes is None else array.transpose(self.axes)
        return np.ascontiguousarray(array, self.dtype)


def write_checkpoint(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    max_shard_size: int = MAX_SHARD_SIZE,
    written: Callable[[str], Any] = lambda name: None,
) -> None:
    """Write `config.json` and the weights into a folder; at any time, the old or the new checkpoint can be read.

    All files are written under temporary names and moved when all of them are complete. One step makes the new
    checkpoint valid: replacing `model.safetensors` or the index of the shards. The weights files contain the
    configuration too, so that readers recognise a `config.json` of another checkpoint by its `fingerprint` (see
    `own_config`).

    Args:
        path: The folder, created if it does not exist. Its other files stay.
        config: Must be serialisable as JSON.
        tensors: By name in the file.
        max_shard_size: Weights with more bytes are split into files of at most this size.
        written: Called with the name of each tensor that has been written.

    Raises:
        CheckpointError: JSON cannot represent the configuration, or safetensors has no such dtype.
        OSError: The disk is full, the folder read-only, or the like. The old checkpoint is unchanged.
    """
    config = _with_fingerprint(config)
    shards = _split(tensors, max_shard_size)
    metadata = {"flaim": json.dumps(config)}
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    names = _shard_names(folder, len(shards), config["fingerprint"])
    single = names == [WEIGHTS]
    with _Replacement(folder) as new:
        for name, shard in zip(names, shards):
            new.write(name, partial(_write_tensors, tensors=shard, metadata=metadata, written=written))
        if not single:
            index = {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values()), **metadata},
                "weight_map": {key: name for name, shard in zip(names, shards) for key in shard},
            }
            new.write(INDEX, partial(_write_json, index))
        new.write(CONFIG, partial(_write_json, config))
        for name in names:
            new.move(name)
        if not single:
            new.move(INDEX)
            (folder / WEIGHTS).unlink(missing_ok=True)  # readers prefer it to the index
        new.move(CONFIG)
    if single:
        (folder / INDEX).unlink(missing_ok=True)
    for file in folder.iterdir():
        if _SHARD.fullmatch(file.name) and file.name not in names:
            file.unlink()


def _with_fingerprint(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(config)
    except TypeError as error:
        raise CheckpointError(f"cannot save this {config.get('model', 'model')}: {error}") from error
    return {**config, "fingerprint": sha256(text.encode()).hexdigest()[:16]}


def _split(tensors: Mapping[str, Tensor], max_shard_size: int) -> list[dict[str, Tensor]]:
    """The tensors of each file. Wide dtypes come first, so that every array is aligned to its dtype."""
    if unknown := {str(tensor.dtype) for tensor in tensors.values()} - {str(dtype) for dtype in _DTYPES}:
        raise CheckpointError(f"safetensors files have no {', '.join(sorted(unknown))}")
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        if size and size + tensor.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _shard_names(folder: Path, count: int, fingerprint: str) -> list[str]:
    """Names of the weights files; new shards do not reuse the name of an old file in the folder."""
    if count == 1:
        return [WEIGHTS]
    for tag in ("", f"-{fingerprint[:8]}", f"-{time.time_ns() & 0xFFFFFFFF:08x}"):
        names = [f"model{tag}-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        if not any((folder / name).exists() for name in names):
            break
    return names


def _write_tensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], written: Callable[[str], Any]
) -> None:
    """Write a safetensors file with at most one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, tensor in tensors.items():
        file.write(tensor.numbers().reshape(-1).view(np.uint8).data)
        written(name)


def _write_json(document: Any, file: BinaryIO) -> None:
    file.write((json.dumps(document, indent=2) + "\n").encode())


class _Replacement:
    """Files written under temporary names in a folder; those that were not moved are deleted at the end."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._temporaries: dict[str, Path] = {}

    def write(self, name: str, content: Callable[[BinaryIO], Any]) -> None:
        """Write a complete file under a temporary name."""
        descriptor, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=self._folder)
        self._temporaries[name] = Path(path)
        with os.fdopen(descriptor, "wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(path, 0o644)  # only the owner can read temporary files

    def move(self, name: str) -> None:
        """Move a file to its final name; it stays there even if the power fails afterwards."""
        os.replace(self._temporaries[name], self._folder / name)
        if os.name == "posix":
            folder = os.open(self._folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def __enter__(self) -> "_Replacement":
        return self

    def __exit__(self, *_: Any) -> None:
        for path in self._temporaries.values():
            path.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes; files younger than an hour may still be in use."""
    for file in folder.glob(".*.tmp"):
        if re.match(r"\.(model|config)", file.name) and file.stat().st_mtime < time.time() - 3600:
            file.unlink(missing_ok=True)
