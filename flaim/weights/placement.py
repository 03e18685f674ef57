"""From a file's tensors to a model's variables: strict, every leaf checked, all that is wrong in one error."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

import flaim_core as core
from flaim.models import Model
from flaim.weights import resample, timm
from flaim.weights.config import Config
from flaim.weights.errors import CheckpointError

_ALIGNMENT = 64  # bytes; XLA takes over host arrays that are so aligned instead of copying them
_BLOCK = 16  # float32 numbers in a cache line


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
    model: Model, tensors: Mapping[str, np.ndarray], config: Config, *, key: PRNGKeyArray, where: str = "the file"
) -> dict:
    """The variables of `model` from the tensors of a checkpoint that `config` describes.

    Tensors have timm's names, or, in flaim's own format, the leaves' paths. Where `model` differs from the checkpoint
    in its input size, position embeddings and relative position tables are resampled; in its image channels, the first
    convolution is adapted; in its classes, the classifier is fresh, drawn with `key` as `model.init(key)` draws it.
    What the model lacks of the head because its `n_classes` is 0 or -1 is left out.

    Raises:
        CheckpointError: Tensors are missing, unexpected, misshapen or not floating-point; all of them are listed.
    """
    native = is_native(tensors)
    if not native:
        tensors = timm.translate(config.family, tensors)
    targets = _targets(model, native)
    fresh, tensors = _head(model, tensors, targets, config, native)

    problems, jobs = [], {}
    for name, target in targets.items():
        if name not in tensors:
            if name not in fresh:
                problems.append(f"{name}: missing, expected shape {target.file_shape}")
            continue
        try:
            array = _adapt(target, tensors[name], model, config)
            jobs[target.path] = array, array.dtype if native else np.dtype(target.leaf.dtype)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += [f"{name}: unexpected, shape {tensors[name].shape}" for name in tensors if name not in targets]
    if problems:
        raise CheckpointError(f"{where} does not fit {model.name}:\n  " + "\n  ".join(problems))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # copies release the interpreter's lock
        copies = pool.map(lambda job: _copy(*job), jobs.values())
        # In this thread, because a default device is a thread's own.
        placed = {path: jax.device_put(copy) for path, copy in zip(jobs, copies)}
    leaves = {target.path: target.leaf for name, target in targets.items() if name in fresh}
    placed |= core.flatten(core.init_leaves(core.unflatten(leaves), key))
    return core.unflatten({target.path: placed[target.path] for target in targets.values()})


def is_native(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the tensors are in flaim's own format, under the paths of the leaves."""
    return any(name.startswith("params/") for name in tensors)


def classes_in(model: Model, tensors: Mapping[str, np.ndarray], family: str) -> int:
    """How many classes the classifier in the file tells apart; -1 where it has none."""
    native = is_native(tensors)
    if not native:
        tensors = timm.translate(family, tensors)
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
    model: Model, tensors: Mapping[str, np.ndarray], targets: Mapping[str, _Target], config: Config, native: bool
) -> tuple[set[str], dict[str, np.ndarray]]:
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


def _adapt(target: _Target, tensor: np.ndarray, model: Model, config: Config) -> np.ndarray:
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
            array = _position_embedding(target.leaf, array, model, config)
        case "relative_position_bias_table":
            array = _relative_table(target.leaf, array, model, config)
        case "kernel" if _is_first(target, array, model, config):
            array = resample.adapt_input_channels(array, model.in_channels)
    if array.shape != target.leaf.shape:
        raise ValueError(f"found shape {found}, expected {shape}")
    return array


def _is_first(target: _Target, array: np.ndarray, model: Model, config: Config) -> bool:
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


def _copy(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in row-major order, in a buffer of its own that JAX can take over.

    Transposing is what loading spends its time on. torch has the output axis first and flaim last, so the copy goes
    over blocks of outputs: what a block reads stays within the processor's cache.
    """
    target = _aligned(array.shape, dtype)
    if array.flags.c_contiguous:
        target[...] = array
    else:
        for start in range(0, array.shape[-1], _BLOCK):
            block = np.s_[..., start : start + _BLOCK]
            target[block] = array[block]
    return target


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array."""
    size = math.prod(shape) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(shape)
