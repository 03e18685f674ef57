"""Save in flaim's own format: `model.safetensors`, with the leaves' paths as names, and `config.json`.

`writer` writes the files so that an interrupted save loses nothing; `converters.native` reads them.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import flaim_core as core
from flaim.model import Model
from flaim.options import overrides_of
from flaim.weights.converters.native import FORMAT, FORMAT_VERSION
from flaim.weights.errors import CheckpointError
from flaim.weights.info import PREPROCESSING
from flaim.weights.saving.writer import MAX_SHARD_SIZE, Tensor, write_checkpoint


def save_pretrained(
    path: str | os.PathLike,
    model: Model,
    variables: Mapping,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    license: str | None = None,
    note: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> None:
    """Save a model and its variables as a folder that `load` and `get_model` read.

    The folder always holds the old checkpoint or the new one, even if saving fails; other files in it stay. Leaves are
    written one at a time, in their own dtypes.

    Args:
        path: The folder, created if it does not exist.
        model: One of flaim's architectures.
        variables: The canonical tree; an adapter's `to_variables` gives it.
        preprocessing: `mean`, `std` and, if known, `interpolation`, `crop_pct`, `crop_mode`, `test_input_size` and
            `test_crop_pct`. Accepts `norm_stats` of `get_model` and `preprocessing` of `flaim.weights.CheckpointInfo`.
        labels: Class names, one per class.
        license: SPDX identifier.
        note: Anything worth knowing: the data, the accuracy.
        max_shard_size: Bytes above which the weights are split into several files.

    Raises:
        CheckpointError: The variables do not fit the model (the message lists all such leaves), or something cannot be
            written as JSON.
        OSError: The disk is full, the folder read-only, or the like.
    """
    problems = core.mismatches(model.spec(), variables, extra=True)
    config = document(model, preprocessing, labels, license, note, problems)
    tensors = {leaf: Tensor(value) for leaf, value in core.flatten(variables).items()}
    write_checkpoint(path, config, tensors, max_shard_size=max_shard_size)


def document(
    model: Model,
    preprocessing: Mapping[str, Any] | None,
    labels: Sequence[str] | None,
    license: str | None,
    note: str | None,
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of a model's `config.json`; the arguments are those of `save_pretrained`.

    Raises:
        CheckpointError: Arguments are wrong, or there are `problems` already; the message lists all.
    """
    # The input size comes from the model itself.
    preprocessing = {name: value for name, value in (preprocessing or {}).items() if name != "input_size"}
    problems = list(problems)
    if labels is not None and len(labels) != model.n_classes:
        problems.append(f"{len(labels)} labels for {model.n_classes} classes")
    known = set(PREPROCESSING) - {"input_size"}
    if unknown := set(preprocessing) - known:
        problems.append(f"unknown preprocessing {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    overrides = {}
    try:
        overrides = overrides_of(model)
    except LookupError as error:
        problems.append(f"a configuration cannot say what it is: {error}")
    if problems:
        raise CheckpointError(f"cannot save this {model.name}:\n  " + "\n  ".join(problems))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "flaim_version": version("flaim"),
        "model": model.name,
        "overrides": overrides,
        "n_classes": model.n_classes,
        "input_size": model.input_size,
        "in_channels": model.in_channels,
        "preprocessing": preprocessing,
        "labels": list(labels) if labels is not None else None,
        "license": license,
        "note": note,
    }
