"""The way back: flaim's variables under timm's names, and the `config.json` with which timm makes the model of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import flaim_core as core
from flaim.models import Model, family_of
from flaim.weights.config import Config
from flaim.weights.errors import CheckpointError
from flaim.weights.native import overrides_of
from flaim.weights.timm import ARGS, axes, tensor_name
from flaim.weights.writer import Tensor

# Families whose timm models are built for one size of images.
_SIZED = {"maxvit", "swin", "vit"}


def tensors(model: Model, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """What timm's `load_state_dict(strict=True)` takes, from the leaves by their paths.

    torch's batch norms also count the batches they have seen, which nothing that flaim or timm has reads: zero.
    """
    leaves = core.flatten(model.spec())
    found = {}
    for path, array in arrays.items():
        order = axes(leaves[path].layout)
        name = tensor_name(path)
        found[name] = Tensor(array, None if order is None else tuple(int(i) for i in np.argsort(order)))
        if path.startswith("batch_stats/") and name.endswith(".running_mean"):
            counter = f"{name.removesuffix('running_mean')}num_batches_tracked"
            found[counter] = Tensor(np.zeros((), np.int64))
    return found


def document(config: Config, model: Model) -> dict[str, Any]:
    """timm's `config.json` for a model with the preprocessing, labels and license of `config`.

    Raises:
        CheckpointError: timm has no such model; all options that it lacks are listed.
    """
    if model.fused:
        raise CheckpointError(f"timm has no fused {model.name}: convert it as it was before `fuse`")
    if model.n_classes == 0:
        raise CheckpointError(f"timm has no {model.name} that ends before its head: convert one with n_classes=-1")
    family = family_of(model.name)
    args = _args(model, family)
    if model.in_channels != 3:
        args["in_chans"] = model.in_channels
    kernels = [path for path, leaf in core.flatten(model.spec()).items() if leaf.layout == "hwio"]
    classes = max(model.n_classes, 0)
    pretrained = {
        "tag": config.params,
        "custom_load": False,
        "input_size": (model.in_channels, *model.input_size),
        "fixed_input_size": family in _SIZED,
        "interpolation": config.interpolation,
        "crop_pct": config.crop_pct,
        "crop_mode": config.crop_mode,
        "mean": config.mean,
        "std": config.std,
        "num_classes": classes,
        "first_conv": _module(kernels[0]),
        "classifier": model.classifier.replace("/", "."),
        "license": config.license,
        "test_input_size": config.test_input_size and (model.in_channels, *config.test_input_size),
        "test_crop_pct": config.test_crop_pct,
    }
    found = {
        "architecture": model.name,
        "num_classes": classes,
        "label_names": config.labels,
        "model_args": args,
        "pretrained_cfg": {name: value for name, value in pretrained.items() if value is not None},
    }
    return {name: value for name, value in found.items() if value is not None}


def _module(path: str) -> str:
    return tensor_name(path).rpartition(".")[0]


def _args(model: Model, family: str) -> dict[str, Any]:
    """Options of flaim's model function as timm's constructor arguments."""
    known = {option: (name, meanings) for name, (option, meanings) in ARGS.get(family, {}).items()}
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
