"""Load models with their published or saved variables."""

import contextlib
import re
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

import flaim_core as core
from flaim.model import Model
from flaim.weights.assign import assign, classes_in, model_of
from flaim.weights.info import CheckpointInfo
from flaim.weights.sources import describe, is_source, read, resolve

__all__ = ["Checkpoint", "from_pretrained", "get_model", "load", "source_of"]


class Checkpoint(NamedTuple):
    """The canonical variables of a checkpoint, and its description."""

    variables: dict
    config: CheckpointInfo


def load(source: str | PathLike) -> Checkpoint:
    """Load a checkpoint as its authors published it.

    `source` is a repository on the Hub (`"hf-hub:timm/resnet50.a1_in1k"`, optionally with `"@revision"`), a folder or a
    file, with or without `"local-dir:"` before it, or a name in the catalogue (`"resnet50.a1_in1k"`). A file without
    `config.json` is enough if it identifies its model, as Keras' files, `.npz` files and flaim's own do.

    Raises:
        CatalogueError, CheckpointError, FileNotFoundError, HubError: As `get_model` does.
    """
    info = describe(source) if is_source(source) else resolve(source)
    if not info.architecture and info.converter == "flaim":  # only leaves, of an unknown model
        tensors, _ = read(info)
        return Checkpoint(core.unflatten({path: jnp.array(value) for path, value in tensors.items()}), info)
    info = resolve(source) if not info.architecture else info
    tensors, where = read(info)
    model = model_of(info)
    return Checkpoint(assign(model, tensors, info, key=jax.random.key(0), where=where), info)


def get_model(
    model_name: str | PathLike,
    pretrained: str | int | bool | PathLike = True,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    jit: bool = True,
    prng: PRNGKeyArray | int | None = None,
    *,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[Model, dict, dict[str, tuple[float, ...]]]:
    """A framework-free model, its variables and the normalisation of its images.

    Args:
        model_name: flaim's model name (`"maxvit_small"`), timm's architecture or `"architecture.tag"`,
            `"hf-hub:organisation/name"` (or `"hf:..."`), `"local-dir:path"`, or the path of a checkpoint.
        pretrained: A parameters name (`"in1k_224"`), a resolution, True for the default parameters, False for random
            ones, or a checkpoint: a path or `"hf-hub:..."`. See `flaim.weights.resolve`.
        n_classes: Positive: logits; -1: the last linear layer's input; 0: the final feature map; None: as the
            checkpoint was trained, which is -1 if it was trained without classes.
        input_size: Side of the images, or (height, width); None: as the checkpoint was trained.
        jit: Compile the random initialisers; if False, they run operation by operation.
        prng: Key or seed (default 0) for random variables: all of them, or only a new classifier's.
        dtype: Compute dtype; the variables stay as stored.
        overrides: `in_channels`, and options of the model function.

    Returns:
        Model, variables, and `{"mean": ..., "std": ...}`, for pixels in [0, 1]; `{}` with `pretrained=False`.

    Raises:
        CatalogueError: No such model, parameters or family; the message lists the nearest or the existing names.
        CheckpointError: A file is corrupt or does not fit; the message lists everything that is wrong.
        FileNotFoundError: There is no such folder or file.
        HubError: A file could not be downloaded; the message says why.
    """
    info = resolve(model_name, pretrained)
    key = jax.random.key(prng or 0) if prng is None or isinstance(prng, int) else prng
    overrides = {**overrides, "dtype": dtype}
    with contextlib.nullcontext() if jit else jax.disable_jit():
        if pretrained is False:
            model = model_of(info, n_classes, input_size, overrides)
            return model, model.init(key), {}
        tensors, where = read(info)
        if info.n_classes is None:
            named = model_of(info, None, input_size, overrides)
            info = info.replace(n_classes=classes_in(named, tensors, info, where=where))
        model = model_of(info, n_classes, input_size, overrides)
        variables = assign(model, tensors, info, key=key, where=where)
    return model, variables, _norm_stats(info, model.in_channels)


def from_pretrained(
    source: str | PathLike,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    *,
    prng: PRNGKeyArray | int | None = None,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[Model, dict, dict[str, tuple[float, ...]]]:
    """Load a saved checkpoint, a path or `"organisation/name"` on the Hub; returns the same as `get_model`."""
    return get_model(source_of(source), True, n_classes, input_size, prng=prng, dtype=dtype, **overrides)


def source_of(source: str | PathLike) -> str | PathLike:
    """Convert `from_pretrained`'s source for `get_model`: `"organisation/name"` is a repository unless it is a path."""
    if isinstance(source, str) and not is_source(source) and Path(source).exists():
        return Path(source)
    is_repository = isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", source)
    return f"hf-hub:{source}" if is_repository and not Path(source).exists() else source


def _norm_stats(info: CheckpointInfo, channels: int) -> dict[str, tuple[float, ...]]:
    """The checkpoint's normalisation for another number of channels: averaged for one, otherwise repeated in turn."""
    if channels == info.in_channels:
        return info.norm_stats
    if channels == 1:
        return {name: (sum(values) / len(values),) for name, values in info.norm_stats.items()}
    return {name: tuple(values[i % len(values)] for i in range(channels)) for name, values in info.norm_stats.items()}
