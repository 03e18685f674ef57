"""From a file's tensors to a model's variables: strict, every leaf checked, all that is wrong in one error."""

import importlib
import math
import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim.models import Model
from flaim.weights import resample, timm
from flaim.weights.config import Config
from flaim.weights.errors import CheckpointError

_ALIGNMENT = 64  # bytes; XLA takes over host arrays that are so aligned instead of copying them


class _Target(NamedTuple):
    """A leaf to fill: where it is, what it is, and how the file's tensor turns into it."""

    path: str
    leaf: core.Leaf
    axes: tuple[int, ...] | None

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape that the tensor has in the file."""
        if self.axes is None:
            return self.leaf.shape
        return tuple(self.leaf.shape[i] for i in np.argsort(self.axes))


def place(
    model: Model, tensors: Mapping[str, Any], config: Config, *, key: PRNGKeyArray, where: str = "the file"
) -> dict:
    """The variables of `model` from the tensors of a checkpoint that `config` describes.

    Tensors have the names of `config.dialect`, or, in flaim's own format, the leaves' paths. Where `model` differs from
    the checkpoint in its input size, position embeddings and relative position tables are resampled; in its image
    channels, the first convolution is adapted; in its classes, the classifier is fresh, drawn with `key` as
    `model.init(key)` draws it. What the model lacks of the head because its `n_classes` is 0 or -1 is left out.

    Raises:
        CheckpointError: Tensors are missing, unexpected, misshapen or not floating-point; all of them are listed.
    """
    own = config.dialect in ("timm", "flaim") and is_native(tensors)
    arrays, fresh = lay_out(model, tensors, config, where=where)
    leaves = core.flatten(model.spec())
    dtypes = [array.dtype if own else np.dtype(leaves[path].dtype) for path, array in arrays.items()]
    device = jax.config.jax_default_device  # type: ignore[attr-defined] # of this thread
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # copies release the interpreter's lock
        placed = dict(zip(arrays, pool.map(_put, arrays.values(), dtypes, repeat(device))))
    placed |= core.flatten(core.init_leaves(core.unflatten(fresh), key))
    return core.unflatten({path: placed[path] for path in leaves})


def lay_out(
    model: Model, tensors: Mapping[str, Any], config: Config, *, where: str = "the file"
) -> tuple[dict[str, Any], dict[str, core.Leaf]]:
    """A checkpoint's arrays by the paths of the leaves they fill, in the leaves' layout, and the leaves left to draw.

    Adapts as `place` does. The arrays are views of the file where nothing has to be computed.

    Raises:
        CheckpointError: As `place` does.
    """
    tensors, native = _translated(tensors, config, where)
    targets = _targets(model, native)
    fresh, tensors = _head(model, tensors, targets, config, native)

    problems, arrays = [], {}
    for name, target in targets.items():
        if name not in tensors:
            if name not in fresh:
                problems.append(f"{name}: missing, expected shape {target.file_shape}")
            continue
        try:
            arrays[target.path] = _adapt(target, tensors[name], model, config)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += [f"{name}: unexpected, shape {tensors[name].shape}" for name in tensors if name not in targets]
    if problems:
        raise CheckpointError(f"{where} does not fit {model.name}:\n  " + "\n  ".join(problems))
    return arrays, {target.path: target.leaf for name, target in targets.items() if name in fresh}


def is_native(tensors: Mapping[str, Any]) -> bool:
    """Whether the tensors are in flaim's own format, under the paths of the leaves."""
    return any(name.startswith("params/") for name in tensors)


def _translated(tensors: Mapping[str, Any], config: Config, where: str) -> tuple[Mapping[str, Any], bool]:
    """The tensors under the names, and in the layout, of timm's, or, where the second value says so, of the leaves."""
    own = config.dialect in ("timm", "flaim")
    try:
        if not own:
            tensors = importlib.import_module(f"flaim.weights.{config.dialect}").translate(tensors, config)
        native = is_native(tensors)
        return tensors if native else timm.translate(config.family if own else "", tensors), native
    except CheckpointError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # known names, other shapes
        raise CheckpointError(f"{where} does not hold the tensors of a {config.model}: {error}") from error


def classes_in(model: Model, tensors: Mapping[str, Any], config: Config, *, where: str = "the file") -> int:
    """How many classes the classifier in the file tells apart; -1 where it has none."""
    tensors, native = _translated(tensors, config, where)
    path = f"params/{model.classifier}/kernel"
    kernel = tensors.get(path if native else timm.tensor_name(path))
    return -1 if kernel is None else kernel.shape[-1 if native else 0]


def _targets(model: Model, native: bool) -> dict[str, _Target]:
    """The leaves of `model` by the names that their tensors have in the file."""
    leaves = core.flatten(model.spec())
    if native:
        return {path: _Target(path, leaf, None) for path, leaf in leaves.items()}
    return {timm.tensor_name(path): _Target(path, leaf, timm.axes(leaf.layout)) for path, leaf in leaves.items()}


def _head(
    model: Model, tensors: Mapping[str, Any], targets: Mapping[str, _Target], config: Config, native: bool
) -> tuple[set[str], dict[str, Any]]:
    """Which leaves are drawn anew, and the tensors without those that the model has no use for."""
    classifier = f"params/{model.classifier}/"
    head = f"params/{model.classifier.rpartition('/')[0] or model.classifier}/"
    fresh = set()
    if model.n_classes > 0 and model.n_classes != config.n_classes:
        # DeiT's distilled models have a second classifier, `head_dist`.
        fresh = {n for n, t in targets.items() if t.path.startswith((classifier, f"{classifier[:-1]}_dist/"))}
    classes = config.n_classes or 0
    if classes <= 0:  # the file may end before the head, as pretraining without labels does
        fresh |= {name for name, target in targets.items() if target.path.startswith(head) and name not in tensors}
    unused = set()
    if any(name not in targets for name in tensors):
        whole = _targets(model.replace(n_classes=max(classes, 1)), native) if model.n_classes <= 0 else {}
        unused = {
            name for name in tensors if name not in targets and (name in whole or timm.may_be_unused(model.name, name))
        }
    return fresh, {name: value for name, value in tensors.items() if name not in fresh | unused}


def _adapt(target: _Target, tensor: Any, model: Model, config: Config) -> Any:
    """The tensor in the leaf's shape and layout, still a view of the file where nothing has to be computed."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise ValueError(f"found {tensor.dtype} numbers, expected floating-point ones")
    shape = target.file_shape
    if tensor.shape != shape and _squeeze(tensor.shape) == _squeeze(shape):
        tensor = tensor.reshape(shape)  # a 1x1 convolution and a dense layer are the same
    found = tensor.shape
    array = tensor if target.axes is None else tensor.transpose(target.axes)
    match target.path.rpartition("/")[2]:
        case "pos_embed":
            array = _position_embedding(target.leaf, np.asarray(array), model, config)
        case "relative_position_bias_table":
            array = _relative_table(target.leaf, np.asarray(array), model, config)
        case "kernel" if _is_first(target, array, model, config):
            array = resample.adapt_input_channels(np.asarray(array), model.in_channels)
    if array.shape != target.leaf.shape:
        raise ValueError(f"found shape {found}, expected {shape}")
    return array


def _is_first(target: _Target, array: Any, model: Model, config: Config) -> bool:
    """Whether this is the convolution that sees the images, for another number of their channels."""
    channels = (config.in_channels, model.in_channels)
    return (
        target.leaf.layout == "hwio"
        and channels[0] != channels[1] == target.leaf.shape[2]
        and (array.shape[2] == channels[0])
    )


def _squeeze(shape: tuple[int, ...]) -> list[int]:
    return [side for side in shape if side != 1]


def _position_embedding(leaf: core.Leaf, array: np.ndarray, model: Model, config: Config) -> np.ndarray:
    kernel = core.flatten(model.spec()).get("params/patch_embed/proj/kernel")
    if kernel is None or array.ndim != 3 or array.shape[::2] != leaf.shape[::2]:
        return array
    new = tuple(side // patch for side, patch in zip(model.input_size, kernel.shape))
    prefix = leaf.shape[1] - new[0] * new[1]
    tokens = array.shape[1] - prefix
    old = tuple(side // patch for side, patch in zip(config.input_size, kernel.shape))
    if old[0] * old[1] != tokens:  # the configuration is mistaken about the size; most images are square
        old = (round(tokens**0.5),) * 2
    if old == new or prefix < 0 or tokens <= 0 or old[0] * old[1] != tokens:
        return array
    return resample.resample_position_embedding(array, old, new, interpolation=timm.interpolation(model.name))


def _relative_table(leaf: core.Leaf, array: np.ndarray, model: Model, config: Config) -> np.ndarray:
    heads = 0 if len(leaf.shape) == 3 else 1
    if array.ndim != len(leaf.shape) or array.shape[heads] != leaf.shape[heads]:
        return array
    old, new = _window(array.shape, config.input_size), _window(leaf.shape, model.input_size)
    return array if old == new or old is None or new is None else resample.resample_relative_table(array, old, new)


def _window(shape: tuple[int, ...], image: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of the window that a relative position table of this shape belongs to.

    A flat table `(offsets, heads)` says only how many offsets there are; among the windows with so many, it is the one
    whose aspect ratio comes nearest to the image's.
    """
    if len(shape) == 3:
        return (shape[1] + 1) // 2, (shape[2] + 1) // 2
    count = shape[0]
    windows = [((d + 1) // 2, (count // d + 1) // 2) for d in range(1, count + 1, 2) if count % d == 0]
    return min(windows, key=lambda w: abs(np.log(w[0] / w[1] * image[1] / image[0])), default=None)


def _put(array: Any, dtype: np.dtype, device: Any) -> Array:
    """The array on the device (None: the default one), in row-major order, with nothing of the file left in memory."""
    values = np.asarray(array).astype(dtype, copy=False)  # axes stay in the order that the file has them in
    if values is array and values.flags.c_contiguous:
        # Not from the file itself, whose pages XLA might take over: a file may change.
        values = _aligned(array.shape, dtype)
        values[...] = array
    with jax.default_device(device):
        # Transposing is what loading spends its time on; XLA does it on the way, and faster than NumPy.
        placed = jax.device_put(values).block_until_ready()
    release(array)
    return placed


def release(array: Any) -> None:
    """Let the system drop the pages of a mapped file that the array is a view of; they count as this process's."""
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
    """An array to fill."""
    size = math.prod(shape) * dtype.itemsize
    # Not np.empty, which asks for huge pages: the system may have to move others' memory to make them.
    buffer = np.frombuffer(bytearray(size + _ALIGNMENT), np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)
