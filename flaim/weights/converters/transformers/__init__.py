"""Hugging Face transformers: its model types, the names of its tensors, and its image processors.

Each module without an underscore has one or more model types: how their configurations are read (`MODEL_TYPES`), and
the names of their tensors (`NAMES`, by flaim's family). `_preprocessing` reads the image processor's file.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flaim_core as core
from flaim.family import OlderNames, rename
from flaim.options import nearest
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.converters.timm import TORCH_LAYOUTS, by_path, tensor_name
from flaim.weights.converters.transformers import (
    beit,
    convnext,
    dinov3,
    efficientnet,
    pvt_v2,
    regnet,
    resnet,
    swin,
    vit,
)
from flaim.weights.converters.transformers._model_type import ModelType, options_of
from flaim.weights.converters.transformers._names import plain
from flaim.weights.converters.transformers._preprocessing import preprocessing_of
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo, Preprocessing

__all__ = ["TRANSFORMERS"]

_MODULES = (vit, beit, dinov3, swin, pvt_v2, convnext, resnet, regnet, efficientnet)
# By `model_type`.
MODEL_TYPES: dict[str, ModelType] = {}
# By flaim's family: the naming schemes of a checkpoint.
NAMES: dict[str, Callable[[CheckpointInfo], tuple[OlderNames, ...]]] = {}
for _module in _MODULES:
    MODEL_TYPES |= _module.MODEL_TYPES
    NAMES |= _module.NAMES

_CLASSIFIER = re.compile(r"^(cls_classifier|classifier|classifier\.1|visual_projection)\.weight$")
_GENERIC_LABEL = re.compile(r"^LABEL_\d+$")

# Each of the models has such a name; those of other libraries do not.
_MARKER = re.compile(
    r"(^|[./])(embeddings[./]patch_embeddings?|embedder[./]embedder|conv_stem[./]first_conv|encoder[./]top_conv"
    r"|layers[./]0[./]patch_embedding|stages[./]0[./]downsample_layers)[./]"
)


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether `config.json`, or the tensors' names if there is none, are transformers'."""
    if (config := documents.get("config.json")) is None:
        return any(map(_MARKER.search, tensors))
    return isinstance(config.get("model_type"), str) and "architecture" not in config


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description in the JSON files of the checkpoint at `where`; without them, the model is unknown.

    Raises:
        CheckpointError: flaim has no such model, or its model lacks options; the message lists them.
    """
    if "config.json" not in documents:  # the names do not give the number of heads and other options
        return CheckpointInfo(n_classes=None)
    data = documents["config.json"]
    model_type = data["model_type"]
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"{where} describes a {model_type} of transformers; "
            f"flaim reads {', '.join(MODEL_TYPES)} (and timm's models)"
        )
    known, names = MODEL_TYPES[model_type], plain(tensors)
    config = data
    if "vision_config" in data or "vision_config_dict" in data:  # a whole CLIP or SigLIP with both towers
        config = {**(data.get("vision_config") or {}), **(data.get("vision_config_dict") or {})}
    options, size, refused = options_of(known, config, names)
    if refused:
        raise CheckpointError(
            f"{where} describes a {model_type} with options that flaim's does not have: {', '.join(refused)}"
        )
    classifier = next((name for name in names if _CLASSIFIER.search(name)), None)
    n_classes = -1 if classifier is None else names[classifier].shape[0]
    # transformers 5 nests the image processor of a multimodal model in a larger processor.
    processor = documents.get("preprocessor_config.json") or documents.get("processor_config.json", {}).get(
        "image_processor"
    )
    preprocessing = preprocessing_of(known.processor, processor or {})
    side = preprocessing.pop("input_size", None)
    if known.any_size and processor and "size" in processor:
        size = side
    architecture, overrides = nearest(known.family, known.variants, options, size)
    return CheckpointInfo(
        model=architecture,
        family=known.family,
        architecture=architecture,
        overrides=overrides,
        n_classes=n_classes,
        in_channels=config.get("num_channels", 3),
        preprocessing=Preprocessing(input_size=size, **preprocessing),
        labels=_labels(data, n_classes),
    )


def _labels(data: Mapping[str, Any], n_classes: int) -> tuple[str, ...] | None:
    labels = {int(index): str(label) for index, label in (data.get("id2label") or {}).items()}
    if not labels or sorted(labels) != list(range(n_classes)) or all(map(_GENERIC_LABEL.match, labels.values())):
        return None
    return tuple(labels[i] for i in range(n_classes))


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by the paths of flaim's leaves, in PyTorch's layout."""
    return by_path(renamed(tensors, info), leaves)


def renamed(tensors: Tensors, info: CheckpointInfo) -> dict[str, Any]:
    """The tensors under timm's names, in PyTorch's layout."""
    tensors = plain(tensors)
    schemes = NAMES[info.family](info) if info.family in NAMES else ()
    names = next((n for n in schemes if any(re.search(n.marker, name) for name in tensors)), None)
    if names is None:
        return tensors
    renamed = ((rename(name, names.rules), value) for name, value in tensors.items())
    tensors = {name: value for name, value in renamed if name is not None}
    return names.finish(tensors) if names.finish else tensors


TRANSFORMERS = Converter("transformers", recognises, describe, translate, layouts=TORCH_LAYOUTS, name_of=tensor_name)
