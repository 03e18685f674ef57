"""flaim's own checkpoints: a folder with `model.safetensors`, whose names are the leaves' paths, and `config.json`.

`writer` has how they are written, and what a save that is cut short leaves.
"""

import dataclasses
import functools
import importlib
import inspect
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax

import flaim_core as core
from flaim.models import Model, create, family_of
from flaim.models import family as family_named
from flaim.models._values import as_value
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
    "functions",
    "nearest",
    "options_from",
    "overrides_of",
    "own_config",
    "ratio_of",
    "save_pretrained",
    "to_json",
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
    """The options in which `model` differs from the architecture it is named after, as JSON has them; see `to_json`."""
    family = family_of(model.name)
    published = {name: to_json(value, family) for name, value in create(model.name).config}
    options = {name: to_json(value, family) for name, value in model.config}
    changed = {name: value for name, value in options.items() if name not in published or published[name] != value}
    return {**changed, "fused": True} if model.fused else changed


def to_json(value: Any, family: str) -> Any:
    """An option of a model of `family` as JSON has it.

    A function, or dataclass, goes by its name, `{"function": "average_pool"}`; with arguments that are bound,
    `{"function": "layer_norm", "eps": 1e-12}`. What has no name in `functions(family)` stays as it is.
    """
    value = as_value(value)
    if isinstance(value, tuple):
        return [to_json(item, family) for item in value]
    names = _names(family)
    arguments: Mapping[str, Any] = {}
    function = value
    if isinstance(value, functools.partial) and not value.args and value.func in names:
        function, arguments = value.func, value.keywords
    elif dataclasses.is_dataclass(value) and type(value) in names:
        function = type(value)
        arguments = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not callable(function) or function not in names:
        return value
    return {"function": names[function], **{name: to_json(item, family) for name, item in arguments.items()}}


def options_from(overrides: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The inverse of `overrides_of`: options of the model function. Only what `functions(family)` has is found."""
    return {name: _from_json(name, value, family) for name, value in overrides.items()}


def _from_json(option: str, value: Any, family: str) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_from_json(option, item, family) for item in value)
    if not isinstance(value, Mapping):
        return value
    function: Any = functions(family).get(str(value.get("function")))
    made = isinstance(function, type) and dataclasses.is_dataclass(function)
    if not made and (not callable(function) or isinstance(function, type)):
        raise CheckpointError(f"{family} has no function {dict(value)} for its option {option!r}")
    arguments = {name: _from_json(option, item, family) for name, item in value.items() if name != "function"}
    try:
        return function(**arguments) if made else _bound(function, tuple(sorted(arguments.items())))
    except TypeError as error:
        raise CheckpointError(f"{family} cannot make {dict(value)} for its option {option!r}: {error}") from error


def ratio_of(hidden: int, dim: int) -> float:
    """The `mlp_ratio` of which `int(dim * mlp_ratio)` is `hidden`."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def nearest(family: str, pattern: str, options: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """The architecture that a model with these options, as JSON has them, is named after, and its overrides.

    Of the family's architectures whose names fit `pattern`, it is the one that needs fewest overrides, for images of
    `size` if several do.
    """
    fn, variants = family_named(family).fn, family_named(family).variants
    defaults = {p.name: p.default for p in inspect.signature(fn).parameters.values()}
    found = {}
    for name in filter(re.compile(pattern).search, variants):
        own = {option: to_json(variants[name].get(option, defaults[option]), family) for option in options}
        overrides = {option: value for option, value in options.items() if value != own[option]}
        found[name] = len(overrides), size_of(variants[name].get("input_size", 224)) != size, overrides
    name = min(found, key=lambda name: found[name][:2])
    return name, found[name][2]


@functools.lru_cache(maxsize=256)
def _bound(function: Any, arguments: tuple[tuple[str, Any], ...]) -> Any:
    """The function with its arguments bound; the same object for the same arguments, so that models compare equal."""
    return functools.partial(function, **dict(arguments)) if arguments else function


@functools.cache
def functions(family: str) -> dict[str, Any]:
    """The functions, by name, that an option of a model of `family` may be: its own, flaim_core's, JAX's activations.

    A checkpoint's meaning must not hang on what the family's module happens to import.
    """
    named: dict[str, Any] = {}
    for module in (importlib.import_module(f"flaim.models.{family}"), core, core.ops, jax.nn):
        others = {name: value for name, value in vars(module).items() if callable(value) and name not in named}
        named = others | named  # of a function's names, the last one is the family's own
    return named


@functools.cache
def _names(family: str) -> dict[Any, str]:
    """The inverse of `functions`."""
    return {as_value(named): name for name, named in functions(family).items()}


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
