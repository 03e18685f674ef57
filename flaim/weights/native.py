"""flaim's own checkpoints: a folder with `model.safetensors`, whose names are the leaves' paths, and `config.json`."""

import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import flaim_core as core
from flaim.models import Model, create, family_of
from flaim.weights.config import Config, size_of
from flaim.weights.errors import CheckpointError

FORMAT, FORMAT_VERSION = "flaim", 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"

_PREPROCESSING = {"mean", "std", "interpolation", "crop_pct", "crop_mode"}


def save_pretrained(
    path: str | os.PathLike,
    model: Model,
    variables: Mapping,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    license: str | None = None,
    note: str | None = None,
) -> None:
    """Save a model and its variables as a folder that `load` and `get_model` read.

    Both files are written beside their place and moved there when they are complete; other files in the folder stay.

    Args:
        path: The folder, made where it is not there.
        model: One of flaim's architectures.
        variables: The canonical tree; an adapter's `to_variables` gives it.
        preprocessing: `mean`, `std` and, where known, `interpolation`, `crop_pct`, `crop_mode`.
        labels: Class names, as many as the model has classes.
        license: SPDX identifier.
        note: Anything worth knowing: the data, the accuracy.

    Raises:
        CheckpointError: The variables do not fit the model (all leaves that do not are listed), or something cannot be
            written as JSON.
    """
    problems = core.mismatches(model.spec(), variables, extra=True)
    if labels is not None and len(labels) != model.n_classes:
        problems.append(f"{len(labels)} labels for {model.n_classes} classes")
    if unknown := set(preprocessing or {}) - _PREPROCESSING:
        problems.append(
            f"unknown preprocessing {', '.join(sorted(unknown))}; known: {', '.join(sorted(_PREPROCESSING))}"
        )
    if problems:
        raise CheckpointError(f"cannot save this {model.name}:\n  " + "\n  ".join(problems))
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "flaim_version": version("flaim"),
        "model": model.name,
        "overrides": overrides_of(model),
        "n_classes": model.n_classes,
        "input_size": model.input_size,
        "in_channels": model.in_channels,
        "preprocessing": dict(preprocessing or {}),
        "labels": list(labels) if labels is not None else None,
        "license": license,
        "note": note,
    }
    try:
        text = json.dumps(config, indent=2) + "\n"
    except TypeError as error:
        raise CheckpointError(f"cannot save this {model.name}: {error}") from error
    from safetensors.numpy import save

    arrays = {path: np.ascontiguousarray(value) for path, value in core.flatten(variables).items()}
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, save(arrays))
    _write(folder / CONFIG, text.encode())


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
    preprocessing |= {name: tuple(preprocessing[name]) for name in ("mean", "std") if name in preprocessing}
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


def _write(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, either the old one is there or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # temporary files are for their owner's eyes only
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
