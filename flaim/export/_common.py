"""Shared by all formats: the function that is exported, and its description."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaim.data.labels import labels_for
from flaim.model import Model
from flaim.weights.info import CheckpointInfo

NormStats = Mapping[str, Sequence[float]]


class ExportError(ValueError):
    """A model cannot be written in a format."""


def describe(model: Model, config: CheckpointInfo | None = None, norm_stats: NormStats | None = None) -> dict[str, Any]:
    """What users of an exported model need to know, as JSON values: images, classes, license.

    Args:
        model: The exported model.
        config: Information on its checkpoint.
        norm_stats: The same as for `to_onnx` or `to_stablehlo`; without them, users must normalise the images by `mean`
            and `std`.
    """
    facts: dict[str, Any] = {
        "flaim": version("flaim"),
        "model": model.name,
        "input": "images (batch, height, width, channels), float32",
        "input_size": list(model.input_size),
        "in_channels": model.in_channels,
        "range": "0 to 1" if norm_stats else "normalised",
        "output": "logits" if model.n_classes > 0 else "features",
    }
    if config is not None:
        facts |= {name: _json(value) for name, value in config.preprocessing.items() if name != "input_size"}
    if norm_stats:
        facts |= {name: _json(value) for name, value in norm_stats.items()}
    if model.n_classes > 0:
        facts["n_classes"] = model.n_classes
        labels = (config and config.labels) or labels_for(model.n_classes)
        if labels and len(labels) == model.n_classes:
            facts["labels"] = list(labels)
    if config is not None:
        facts |= {name: value for name in ("license", "note") if (value := getattr(config, name))}
    return facts


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def inference(model: Model, variables: Mapping, norm_stats: NormStats | None) -> Callable:
    """The function from images to the model's output; with `norm_stats`, it takes images in [0, 1]."""
    if norm_stats is None:
        return lambda images: model.apply(variables, images).value
    mean, std = (np.asarray(norm_stats[name], np.float32)[None, None, None] for name in ("mean", "std"))
    return lambda images: model.apply(variables, (images - jnp.asarray(mean)) / jnp.asarray(std)).value
