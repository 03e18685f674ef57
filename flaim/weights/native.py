"""flaim's own checkpoints: a folder with `model.safetensors`, whose names are the leaves' paths, and `config.json`.

`writer` has how they are written, and what a save that is cut short leaves.
"""

import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import flaim_core as core
from flaim.models import Model, create, family_of
from flaim.weights.config import Config, size_of
from flaim.weights.errors import CheckpointError
from flaim.weights.writer import CONFIG, INDEX, MAX_SHARD_SIZE, WEIGHTS, Tensor, own_config, write_checkpoint

FORMAT, FORMAT_VERSION = "flaim", 1

__all__ = [
    "CONFIG",
    "FORMAT",
    "INDEX",
    "PREPROCESSING",
    "WEIGHTS",
    "config_from",
    "document",
    "options_from",
    "overrides_of",
    "own_config",
    "save_pretrained",
]

PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "test_input_size", "test_crop_pct")


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

    Whatever happens meanwhile, the folder holds the old checkpoint or the new one; other files in it stay. Leaves are
    written one at a time, in their own types.

    Args:
        path: The folder, made where it is not there.
        model: One of flaim's architectures.
        variables: The canonical tree; an adapter's `to_variables` gives it.
        preprocessing: `mean`, `std` and, where known, `interpolation`, `crop_pct`, `crop_mode`, and `test_input_size`
            and `test_crop_pct`, at which the model evaluates better. `norm_stats` of `get_model` will do, and so will
            `preprocessing` of `flaim.weights.Config`.
        labels: Class names, as many as the model has classes.
        license: SPDX identifier.
        note: Anything worth knowing: the data, the accuracy.
        max_shard_size: Bytes above which the weights are split into several files.

    Raises:
        CheckpointError: The variables do not fit the model (all leaves that do not are listed), or something cannot be
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
    """What `config.json` says of a model; the arguments are those of `save_pretrained`.

    Raises:
        CheckpointError: Something is wrong with the arguments, or there are `problems` already; all are listed.
    """
    # The model itself knows the size of its images.
    preprocessing = {name: value for name, value in (preprocessing or {}).items() if name != "input_size"}
    problems = list(problems)
    if labels is not None and len(labels) != model.n_classes:
        problems.append(f"{len(labels)} labels for {model.n_classes} classes")
    if unknown := set(preprocessing) - set(PREPROCESSING):
        problems.append(
            f"unknown preprocessing {', '.join(sorted(unknown))}; known: {', '.join(sorted(PREPROCESSING))}"
        )
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


def overrides_of(model: Model) -> dict[str, Any]:
    """The options in which `model` differs from the architecture it is named after, as JSON has them.

    A function goes by its name in the family's module: `{"function": "average_pool"}`.
    """
    published = dict(create(model.name).config)
    changed = {name: value for name, value in model.config if name not in published or published[name] != value}
    names = {id(value): name for name, value in vars(_module(family_of(model.name))).items() if callable(value)}
    options = {name: {"function": names[id(v)]} if id(v) in names else v for name, v in changed.items()}
    return {**options, "fused": True} if model.fused else options


def options_from(overrides: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The inverse of `overrides_of`: options of the model function. Only functions of the family's module are found."""
    options = {}
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            value = vars(_module(family)).get(value.get("function"))
            if not inspect.isfunction(value):
                raise CheckpointError(f"{family} has no function {overrides[name]} for its option {name!r}")
        options[name] = value
    return options


def _module(family: str):
    return importlib.import_module(f"flaim.models.{family}")


def config_from(data: Mapping[str, Any], family: str, where: str) -> Config:
    """The configuration in a `config.json` of flaim's own, found at `where`, of a model of `family`."""
    if data["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has version {data['format_version']} of flaim's format, this flaim knows version "
            f"{FORMAT_VERSION}: upgrade flaim (it was written by {data.get('flaim_version')})"
        )
    preprocessing: dict[str, Any] = dict(data.get("preprocessing", {}))
    if unknown := set(preprocessing) - set(PREPROCESSING):
        raise CheckpointError(f"{where} has preprocessing that flaim does not know: {', '.join(sorted(unknown))}")
    tuples = ("mean", "std", "test_input_size")
    preprocessing |= {name: tuple(preprocessing[name]) for name in tuples if name in preprocessing}
    labels = data.get("labels")
    return Config(
        model=data["model"],
        architecture=data["model"],
        family=family,
        overrides=data.get("overrides", {}),
        n_classes=data["n_classes"],
        input_size=size_of(data["input_size"]),
        in_channels=data.get("in_channels", 3),
        labels=tuple(labels) if labels else None,
        license=data.get("license"),
        note=data.get("note"),
        **preprocessing,
    )
