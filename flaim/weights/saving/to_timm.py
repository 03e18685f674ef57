"""Export to timm: flaim's variables under timm's names, and the `config.json` from which timm builds the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import flaim_core as core
from flaim.family import Timm
from flaim.model import Model
from flaim.options import overrides_of
from flaim.registry import family, family_of
from flaim.weights.converters.timm import TORCH_LAYOUTS, tensor_name
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo
from flaim.weights.saving.writer import Tensor


def tensors(model: Model, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors for timm's `load_state_dict(strict=True)`, from the leaves by path.

    torch's batch norms also count batches. Neither flaim nor timm reads the counters, so they are zero.
    """
    leaves = core.flatten(model.spec())
    found = {}
    for path, array in arrays.items():
        layout, name = leaves[path].layout, tensor_name(path)
        there = TORCH_LAYOUTS.get(layout, layout)
        found[name] = Tensor(array, None if there == layout else tuple(map(layout.index, there)))
        if path.startswith("batch_stats/") and name.endswith(".running_mean"):
            counter = f"{name.removesuffix('running_mean')}num_batches_tracked"
            found[counter] = Tensor(np.zeros((), np.int64))
    return found


def document(info: CheckpointInfo, model: Model) -> dict[str, Any]:
    """timm's `config.json` for a model with the preprocessing, labels and license of `info`.

    Raises:
        CheckpointError: timm has no such model; the message lists all options that it lacks.
    """
    if model.fused:
        raise CheckpointError(f"timm has no fused {model.name}: convert it as it was before `fuse`")
    if model.n_classes == 0:
        raise CheckpointError(f"timm has no {model.name} that ends before its head: convert one with n_classes=-1")
    timm = family(family_of(model.name)).timm
    if timm is None:
        raise CheckpointError(f"timm has no {model.name}")
    args = _args(model, timm)
    if model.in_channels != 3:
        args["in_chans"] = model.in_channels
    kernels = [path for path, leaf in core.flatten(model.spec()).items() if leaf.layout == "hwio"]
    classes = max(model.n_classes, 0)
    images = info.preprocessing
    pretrained = {
        "tag": info.params,
        "custom_load": False,
        "input_size": (model.in_channels, *model.input_size),
        "fixed_input_size": timm.fixed_input_size,
        "interpolation": images.interpolation,
        "crop_pct": images.crop_pct,
        "crop_mode": images.crop_mode,
        "mean": images.mean,
        "std": images.std,
        "num_classes": classes,
        "first_conv": _module(kernels[0]),
        "classifier": model.classifier.replace("/", "."),
        "license": info.license,
        "test_input_size": images.test_input_size and (model.in_channels, *images.test_input_size),
        "test_crop_pct": images.test_crop_pct,
    }
    found = {
        "architecture": model.name,
        "num_classes": classes,
        "label_names": info.labels,
        "model_args": args,
        "pretrained_cfg": {name: value for name, value in pretrained.items() if value is not None},
    }
    return {name: value for name, value in found.items() if value is not None}


def _module(path: str) -> str:
    return tensor_name(path).rpartition(".")[0]


def _args(model: Model, timm: Timm) -> dict[str, Any]:
    """Options of flaim's model function as timm's constructor arguments."""
    known = {option: (name, meanings) for name, (option, meanings) in timm.args.items()}
    args, unknown = {}, []
    for option, value in overrides_of(model).items():
        name, meanings = known.get(option, ("", None))
        values = [value] if meanings is None else [key for key, meaning in meanings.items() if meaning == value]
        if name and values:
            args[name] = values[0]
        else:
            unknown.append(f"{option}={value!r}")
    if unknown:
        raise CheckpointError(f"timm's {model.name} has no options for {', '.join(unknown)}")
    return args
