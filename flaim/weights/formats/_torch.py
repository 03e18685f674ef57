"""Files of `torch.save`: a zip file with a pickle and the bytes of each storage or, before version 1.6, several pickles
followed by the storages. Tensors are views of the storages."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats import _mapped
from flaim.weights.formats._nested import MAX_DEPTH, flatten
from flaim.weights.formats._pickle import FUNCTIONS, MAGIC_OF_TORCH
from flaim.weights.formats._pickle_arrays import Array, Name
from flaim.weights.formats._pickle_machine import Machine
from flaim.weights.formats._zip import Archive

_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
}
_DTYPES = {
    **{name: _mapped.dtype_of(name) for name in {*_STORAGES.values(), "uint16", "uint32", "uint64"}},
    **_mapped.EXTENDED,
}

# Keys under which training scripts save weights, in order of preference; averaged (EMA) weights come first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")


class Storage(NamedTuple):
    """A storage: its bytes, and the default dtype of tensors in it."""

    data: memoryview
    dtype: np.dtype


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The tensors of the file's state dict, or all tensors in the file if it is not clear which is the state dict."""
    is_zip = bytes(data[:2]) == b"PK"
    tree = _from_zip(path, data) if is_zip else _from_pickles(path, data)
    return flatten(_state_dict(tree), str(path))


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Empty: the format has no metadata."""
    return {}


def _state_dict(tree: Any) -> Any:
    """The dictionary of tensors within a training script's checkpoint."""
    known: dict[int, bool] = {}
    for _ in range(8):
        if type(tree) is not dict or any(isinstance(value, Array) for value in tree.values()):
            break
        inner = [name for name in _WRAPPERS if _has_tensors(tree.get(name), known)]
        inner = inner or [name for name, value in tree.items() if _has_tensors(value, known)]
        if len(inner) != 1 and (not inner or inner[0] not in _WRAPPERS):
            break
        tree = tree[inner[0]]
    return tree


def _has_tensors(value: Any, known: dict[int, bool], depth: int = 0) -> bool:
    """Whether nested dictionaries contain tensors; `known` caches the answers by id."""
    if type(value) is not dict or depth > MAX_DEPTH:
        return isinstance(value, Array)
    if id(value) not in known:
        known[id(value)] = False  # it may contain itself
        known[id(value)] = any(_has_tensors(item, known, depth + 1) for item in value.values())
    return known[id(value)]


def _from_zip(path: Path, data: memoryview) -> Any:
    archive = Archive(path, data)
    pickles = [name for name in archive.members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise CheckpointError(f"{path} has {len(pickles)} pickles, expected one: {', '.join(pickles[:5])}")
    root = pickles[0].removesuffix("data.pkl")
    order = bytes(archive.read(f"{root}byteorder")) if f"{root}byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(f"{path}, byteorder: found {order[:20]!r}, expected little or big")

    def storage(identifier: Any) -> Storage:
        dtype, key, count = _parts(identifier, order.decode())
        name = f"{root}data/{key}"
        if name not in archive.members:
            raise CheckpointError(f"{path} has no member {name[:200]!r}, a storage of its tensors")
        if not archive.members[name].stored:
            raise CheckpointError(f"{archive.name(name)} is compressed, which PyTorch's storages are not")
        content = archive.content(name)
        if len(content) != count * dtype.itemsize:
            raise CheckpointError(
                f"{archive.name(name)}: found {len(content)} bytes, expected {count} numbers of type {dtype}"
            )
        return Storage(content, dtype)

    where = f"{path}, {pickles[0]}"
    return Machine(archive.read(pickles[0]), where, TORCH_FUNCTIONS, storage).run()[0]


def _from_pickles(path: Path, data: memoryview) -> Any:
    """Read a magic number, a version, the writer's integer sizes, the object, the storages' keys and the storages."""
    where = str(path)
    version, position = Machine(data, where, {}, start=len(MAGIC_OF_TORCH)).run()
    system, start = Machine(data, where, {}, start=position).run()
    if version != 1001 or type(system) is not dict:
        raise CheckpointError(f"{path} is not in a known version of PyTorch's old format")
    order: Any = "little" if system.get("little_endian", True) is True else "big"
    wanted: dict[str, tuple[np.dtype, int]] = {}
    storages: dict[str, Storage] = {}

    def note(identifier: Any) -> None:
        dtype, key, count = _parts(identifier, order)
        if wanted.setdefault(key, (dtype, count)) != (dtype, count) or identifier[5:] not in ((), (None,)):
            raise ValueError("a view of another storage")

    # The storages come last, so the object is read twice: first for the storages' dtypes, then for the tensors.
    _, position = Machine(data, where, {**TORCH_FUNCTIONS, **dict.fromkeys(_REBUILD, _inert)}, note, start).run()
    keys, position = Machine(data, where, {}, start=position).run()
    if type(keys) is not list or set(map(str, keys)) != set(wanted):
        raise CheckpointError(f"{path} does not list the storages that its tensors are in")
    for key in map(str, keys):
        dtype, count = wanted[key]
        found = int.from_bytes(data[position : position + 8], order, signed=True)
        end = position + 8 + count * dtype.itemsize
        if found != count or end > len(data):
            raise CheckpointError(
                f"{path} is truncated or corrupt at byte {position}: a storage of {found} numbers, expected {count} of "
                f"type {dtype}; the file has {len(data)} bytes"
            )
        storages[key] = Storage(data[position + 8 : end], dtype)
        position = end
    return Machine(data, where, TORCH_FUNCTIONS, lambda identifier: storages[identifier[2]], start).run()[0]


def _parts(identifier: Any, order: str) -> tuple[np.dtype, str, int]:
    """The dtype, key and number of elements in the persistent id of a storage."""
    if type(identifier) is not tuple or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise ValueError("a persistent id that is no storage's")
    _, kind, key, _, count = identifier[:5]
    if type(kind) is not Name or not kind.endswith("Storage") or type(key) is not str or type(count) is not int:
        raise ValueError("a persistent id that is no storage's")
    if count < 0:
        raise ValueError(f"a storage of {count} numbers")
    dtype = _DTYPES[_STORAGES[kind.rpartition(".")[2].removesuffix("Storage")]]
    return dtype.newbyteorder("<" if order == "little" else ">"), key, count


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype) -> Array:
    """A tensor in a storage; offset and strides count elements."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor that is in no storage")
    shape, strides, (offset,) = map(_mapped.shape_of, (shape, strides, (offset,)))
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    room = len(storage.data) // dtype.itemsize
    end = offset + sum((side - 1) * stride for side, stride in zip(shape, strides)) + 1 if math.prod(shape) else 0
    if max(end, math.prod(shape)) > room:
        raise ValueError(f"a tensor of shape {shape}, strides {strides} at {offset} of a storage of {room} numbers")
    strides = tuple(stride * dtype.itemsize for stride in strides)
    array = np.ndarray(shape, dtype, storage.data, offset * dtype.itemsize, strides) if end else np.empty(shape, dtype)
    array.flags.writeable = False
    return Array(array)


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any = None, hooks: Any = None, notes: Any = None
) -> Array:
    if notes:  # conjugate or negative views
        raise ValueError("a tensor that is stored as another one")
    return _tensor(storage, offset, shape, strides, storage.dtype)


def _rebuild_typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, dtype: Any, notes: Any = None
) -> Array:
    if notes:
        raise ValueError("a tensor that is stored as another one")
    if type(dtype) is not Name or dtype.removeprefix("torch.") not in _DTYPES:
        raise ValueError("a tensor of an unknown type")
    own = _DTYPES[dtype.removeprefix("torch.")]
    return _tensor(storage, offset, shape, strides, own)


def _rebuild_parameter(tensor: Any, *notes: Any) -> Array:
    if not isinstance(tensor, Array):
        raise ValueError("a parameter that is not a tensor")
    return tensor


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Array:
    if function not in _REBUILD or type(function) is not Name or type(arguments) is not tuple:
        raise ValueError("a tensor of an unknown kind")
    return _REBUILD[function](*arguments)


def _size(sides: Any = ()) -> tuple:
    return _mapped.shape_of(sides)


def _inert(*arguments: Any) -> None:
    """Ignore the arguments, such as the device of a tensor."""


_REBUILD: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}
TORCH_FUNCTIONS: dict[str, Callable | None] = {
    **FUNCTIONS,
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "torch.device": _inert,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    **{f"torch.{name}Storage": None for name in _STORAGES},
    "torch.storage.UntypedStorage": None,
    **{f"torch.{name}": None for name in _DTYPES},
}
