"""Assign a file's tensors to a model's variables: every leaf is checked, and one error lists all problems.

If the model differs from the checkpoint in input size, image channels or classes, the tensors are adapted.
"""

import math
import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim._index import family_of
from flaim.family import Timm
from flaim.model import Model
from flaim.options import options_from
from flaim.registry import create, family
from flaim.weights import resample
from flaim.weights.converters import CONVERTERS, Converter
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo

_ALIGNMENT = 64  # bytes; XLA uses host arrays with this alignment without copying them


def model_of(
    info: CheckpointInfo,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Model:
    """The model of a checkpoint, with the caller's changes.

    Raises:
        CheckpointError: The model does not have an option of the checkpoint.
    """
    n_classes = info.n_classes if n_classes is None else n_classes
    try:
        options = options_from(info.overrides, info.family)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    options = {"in_channels": info.in_channels, **options, **overrides}
    return create(info.architecture, n_classes, input_size or info.input_size, **options)


def assign(
    model: Model, tensors: Mapping[str, Any], info: CheckpointInfo, *, key: PRNGKeyArray, where: str = "the file"
) -> dict:
    """The variables of `model` from the tensors of the checkpoint that `info` describes.

    If `model` differs from the checkpoint in input size, position embeddings and relative position tables are
    resampled. If it differs in image channels, the first convolution is adapted. If it differs in classes, the
    classifier is initialised with `key`, as in `model.init(key)`. If `n_classes` is 0 or -1, tensors of the missing
    head are ignored.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of the wrong shape or not floating-point; the message lists
            all of them.
    """
    arrays, fresh = lay_out(model, tensors, info, where=where)
    leaves, keep = core.flatten(model.spec()), CONVERTERS[info.converter].keeps_dtype
    dtypes = [array.dtype if keep else np.dtype(leaves[path].dtype) for path, array in arrays.items()]
    device = jax.config.jax_default_device  # type: ignore[attr-defined] # this thread's
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # copies release the GIL
        variables = dict(zip(arrays, pool.map(_put, arrays.values(), dtypes, repeat(device))))
    variables |= core.flatten(core.init_leaves(core.unflatten(fresh), key))
    return core.unflatten({path: variables[path] for path in leaves})


def lay_out(
    model: Model, tensors: Mapping[str, Any], info: CheckpointInfo, *, where: str = "the file"
) -> tuple[dict[str, Any], dict[str, core.Leaf]]:
    """A checkpoint's arrays by leaf path, in the leaves' layout, and the leaves that remain to be initialised.

    Adapts tensors as `assign` does. Arrays that need no computation are views of the file.

    Raises:
        CheckpointError: As `assign` does.
    """
    converter, leaves = CONVERTERS[info.converter], core.flatten(model.spec())
    found = _translated(model, tensors, info, where)
    fresh, unused = _head(model, found, leaves, info)

    problems, arrays = [], {}
    for path, leaf in leaves.items():
        if path in fresh:
            continue
        name, layout = converter.name_of(path), converter.layouts.get(leaf.layout, leaf.layout)
        if path not in found:
            problems.append(f"{name}: missing, expected shape {_permuted(leaf.shape, leaf.layout, layout)}")
            continue
        try:
            arrays[path] = _adapt(path, leaf, found[path], layout, model, info)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += [
        f"{converter.name_of(path) if path.startswith(('params/', 'batch_stats/')) else path}: unexpected, "
        f"shape {tensor.shape}"
        for path, tensor in found.items()
        if path not in leaves and path not in unused
    ]
    if problems:
        raise CheckpointError(f"{where} does not fit {model.name}:\n  " + "\n  ".join(problems))
    return arrays, {path: leaves[path] for path in leaves if path in fresh}


def classes_in(model: Model, tensors: Mapping[str, Any], info: CheckpointInfo, *, where: str = "the file") -> int:
    """The number of classes of the file's classifier; -1 if it has none."""
    path = f"params/{model.classifier}/kernel"
    kernel = _translated(model, tensors, info, where).get(path)
    if kernel is None:
        return -1
    layout = core.flatten(_whole(model).spec())[path].layout
    return kernel.shape[CONVERTERS[info.converter].layouts.get(layout, layout).index("o")]


def _whole(model: Model) -> Model:
    """The model with its head."""
    return model if model.n_classes > 0 else model.replace(n_classes=1)


def _translated(model: Model, tensors: Mapping[str, Any], info: CheckpointInfo, where: str) -> dict[str, Any]:
    """The tensors by leaf path, for the model with its head."""
    converter: Converter = CONVERTERS[info.converter]
    try:
        return converter.translate(tensors, info, core.flatten(_whole(model).spec()))
    except CheckpointError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # known names, unexpected shapes
        raise CheckpointError(f"{where} does not hold the tensors of a {info.model}: {error}") from error


def _head(
    model: Model, found: Mapping[str, Any], leaves: Mapping[str, core.Leaf], info: CheckpointInfo
) -> tuple[set[str], set[str]]:
    """The leaves to initialise, and the tensors that the model does not use."""
    classifier = f"params/{model.classifier}/"
    head = f"params/{model.classifier.rpartition('/')[0] or model.classifier}/"
    fresh, unused = set(), set()
    if model.n_classes > 0 and model.n_classes != info.n_classes:
        # DeiT's distilled models have a second classifier, `head_dist`.
        fresh = {path for path in leaves if path.startswith((classifier, f"{classifier[:-1]}_dist/"))}
    if (info.n_classes or 0) <= 0:  # the file may lack the head, after pretraining without labels
        fresh |= {path for path in leaves if path.startswith(head) and path not in found}
    if rest := [path for path in found if path not in leaves]:
        whole = core.flatten(_whole(model).spec()) if model.n_classes <= 0 else {}
        timm = _timm(model)
        unused = {path for path in rest if path in whole or timm.unused(model.name, path)}
    return fresh, unused


def _timm(model: Model) -> Timm:
    return family(family_of(model.name)).timm or Timm(())


def _permuted(shape: tuple[int, ...], layout: str, other: str) -> tuple[int, ...]:
    """A shape in another layout of the same axes."""
    return tuple(shape[layout.index(axis)] for axis in other) if layout != other else shape


def _adapt(path: str, leaf: core.Leaf, tensor: Any, layout: str, model: Model, info: CheckpointInfo) -> Any:
    """Convert a tensor of this layout to the leaf's shape and layout; a view of the file if nothing is computed."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise ValueError(f"found {tensor.dtype} numbers, expected floating-point ones")
    shape = _permuted(leaf.shape, leaf.layout, layout)
    if tensor.shape != shape and _squeeze(tensor.shape) == _squeeze(shape):
        tensor = tensor.reshape(shape)  # a 1x1 convolution and a dense layer are the same
    found = tensor.shape
    array = tensor
    if layout != leaf.layout and len(found) == len(layout):
        array = tensor.transpose(tuple(map(layout.index, leaf.layout)))
    match path.rpartition("/")[2]:
        case "pos_embed":
            array = _position_embedding(leaf, np.asarray(array), model, info)
        case "relative_position_bias_table":
            array = _relative_table(leaf, np.asarray(array), model, info)
        case "kernel" if _is_first(leaf, array, model, info):
            array = resample.adapt_input_channels(np.asarray(array), model.in_channels)
    if array.shape != leaf.shape:
        raise ValueError(f"found shape {found}, expected {shape}")
    return array


def _is_first(leaf: core.Leaf, array: Any, model: Model, info: CheckpointInfo) -> bool:
    """Whether this is the first convolution, and the number of image channels differs."""
    channels = (info.in_channels, model.in_channels)
    return leaf.layout == "hwio" and channels[0] != channels[1] == leaf.shape[2] and array.shape[2:3] == channels[:1]


def _squeeze(shape: tuple[int, ...]) -> list[int]:
    return [side for side in shape if side != 1]


def _position_embedding(leaf: core.Leaf, array: np.ndarray, model: Model, info: CheckpointInfo) -> np.ndarray:
    new, old = (_grid(model, size) for size in (model.input_size, info.input_size))
    if new is None or old is None or array.ndim != 3 or array.shape[::2] != leaf.shape[::2]:
        return array
    prefix = leaf.shape[1] - new[0] * new[1]
    tokens = array.shape[1] - prefix
    if prefix < 0 or tokens <= 0:
        return array
    if old[0] * old[1] != tokens:  # the configuration has a wrong size; most images are square
        old = (round(tokens**0.5),) * 2
    if old == new or old[0] * old[1] != tokens:
        return array
    return resample.resample_position_embedding(array, old, new, interpolation=_timm(model).interpolation(model.name))


def _grid(model: Model, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of the map of patches of an image of `size`; None if the model does not cut it into patches."""
    leaves = core.flatten(model.spec())
    if any(path.startswith("params/patch_embed/backbone/") for path in leaves):  # hybrids: patches of a feature map
        image = model.replace(input_size=size).image()
        height, width = core.shapes(model._call, image, capture="patches")[1]["patches"].shape[1:3]
        return height, width
    kernel = leaves.get("params/patch_embed/proj/kernel")
    return None if kernel is None else (size[0] // kernel.shape[0], size[1] // kernel.shape[1])


def _relative_table(leaf: core.Leaf, array: np.ndarray, model: Model, info: CheckpointInfo) -> np.ndarray:
    heads = 0 if len(leaf.shape) == 3 else 1
    if array.ndim != len(leaf.shape) or array.shape[heads] != leaf.shape[heads]:
        return array
    old, new = _window(array.shape, info.input_size), _window(leaf.shape, model.input_size)
    return array if old == new or old is None or new is None else resample.resample_relative_table(array, old, new)


def _window(shape: tuple[int, ...], image: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of the window that a relative position table of this shape belongs to.

    A flat table `(offsets, heads)` gives only the number of offsets. Of the windows with this number, the result is the
    one whose aspect ratio is closest to the image's. The number is odd; three more rows are a class token's.
    """
    if len(shape) == 3:
        return (shape[1] + 1) // 2, (shape[2] + 1) // 2
    count = shape[0] if shape[0] % 2 else shape[0] - 3
    windows = [((d + 1) // 2, (count // d + 1) // 2) for d in range(1, count + 1, 2) if count % d == 0]
    return min(windows, key=lambda w: abs(np.log(w[0] / w[1] * image[1] / image[0])), default=None)


def _put(array: Any, dtype: np.dtype, device: Any) -> Array:
    """Copy the array to the device (None: the default one) in row-major order, and release the file's memory."""
    values = np.asarray(array).astype(dtype, copy=False)  # axes stay in the file's order
    if values is array and values.flags.c_contiguous:
        # Copy first: XLA might use the file's pages directly, and the file may change.
        values = _aligned(array.shape, dtype)
        values[...] = array
    with jax.default_device(device):
        # Most of the loading time is transposing; XLA does it during the transfer, and faster than NumPy.
        placed = jax.device_put(values).block_until_ready()
    release(array)
    return placed


def release(array: Any) -> None:
    """Let the system drop the mapped file's pages under the array; they count as this process's memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return
    first, last = np.lib.array_utils.byte_bounds(array)
    origin = np.frombuffer(base, np.uint8).ctypes.data
    start = (first - origin) // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, start, last - origin - start)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An aligned array to fill."""
    size = math.prod(shape) * dtype.itemsize
    # Not np.empty, which asks for huge pages: the system may have to move memory to make room for them.
    buffer = np.frombuffer(bytearray(size + _ALIGNMENT), np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)
