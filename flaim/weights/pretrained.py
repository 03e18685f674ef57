"""Models with their published variables."""

import contextlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

import flaim_core as core
from flaim.models import Model, create
from flaim.weights import readers
from flaim.weights.config import Config
from flaim.weights.errors import CheckpointError
from flaim.weights.native import options_from
from flaim.weights.placement import classes_in, is_native, place
from flaim.weights.sources import read, resolve


class Checkpoint(NamedTuple):
    """The canonical variables of a checkpoint, and what is known of it."""

    variables: dict
    config: Config


def load(source: str | PathLike) -> Checkpoint:
    """A checkpoint as its authors published it.

    `source` is a repository on the Hub (`"hf-hub:timm/resnet50.a1_in1k"`, perhaps with `"@revision"`), a folder or a
    file, with or without `"local-dir:"` before it, or a name of the catalogue (`"resnet50.a1_in1k"`). A lone file is
    enough where its tensors' names say which model it is, as those of flaim's own format, Keras and `.npz` files do.

    Raises:
        CatalogueError, CheckpointError, FileNotFoundError, HubError: As `get_model` does.
    """
    try:
        config = resolve(source)
    except CheckpointError:
        path = str(source).removeprefix("local-dir:")
        if not Path(path).is_file() or readers.format_of(path) not in ("safetensors", "index"):
            raise
        if not is_native(tensors := readers.read(path)):
            raise
        leaves = {name: jnp.array(value) for name, value in tensors.items()}
        return Checkpoint(core.unflatten(leaves), Config(path=path, n_classes=None, dialect="flaim"))
    tensors, where = read(config)
    model = model_of(config)
    return Checkpoint(place(model, tensors, config, key=jax.random.key(0), where=where), config)


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
            checkpoint was trained, which is -1 where it was trained without classes.
        input_size: Images' side, or (height, width); None: as the checkpoint was trained.
        jit: Compile random initialisers; without, they run operation by operation.
        prng: Key (or seed, by default 0) of random variables: all of them, or a fresh classifier's.
        dtype: Compute dtype; the variables stay as stored.
        overrides: `in_channels`, and options of the model function.

    Returns:
        Model, variables, and `{"mean": ..., "std": ...}`, for pixels in [0, 1]; `{}` with `pretrained=False`.

    Raises:
        CatalogueError: No such model, parameters or family; the nearest names, or those that exist, are given.
        CheckpointError: A file is corrupt or does not fit; everything that is wrong is listed.
        FileNotFoundError: There is no such folder or file.
        HubError: The Hub cannot give a file, and why.
    """
    config = resolve(model_name, pretrained)
    key = jax.random.key(prng or 0) if prng is None or isinstance(prng, int) else prng
    overrides = {**overrides, "dtype": dtype}
    with contextlib.nullcontext() if jit else jax.disable_jit():
        if pretrained is False:
            model = model_of(config, n_classes, input_size, overrides)
            return model, model.init(key), {}
        tensors, where = read(config)
        if config.n_classes is None:
            named = model_of(config, None, input_size, overrides)
            config = config.replace(n_classes=classes_in(named, tensors, config, where=where))
        model = model_of(config, n_classes, input_size, overrides)
        variables = place(model, tensors, config, key=key, where=where)
    return model, variables, _norm_stats(config, model.in_channels)


def model_of(
    config: Config,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Model:
    """The model that a checkpoint is of, with the caller's changes."""
    n_classes = config.n_classes if n_classes is None else n_classes
    options = {"in_channels": config.in_channels, **options_from(config.overrides, config.family), **overrides}
    return create(config.architecture, n_classes, input_size or config.input_size, **options)


def _norm_stats(config: Config, channels: int) -> dict[str, tuple[float, ...]]:
    """The checkpoint's normalisation for another number of channels, which repeat or, where it is one, average."""
    if channels == config.in_channels:
        return config.norm_stats
    if channels == 1:
        return {name: (sum(values) / len(values),) for name, values in config.norm_stats.items()}
    return {name: tuple(values[i % len(values)] for i in range(channels)) for name, values in config.norm_stats.items()}
