"""flaim's own checkpoints: `config.json`, and tensors named by the leaves' paths. `saving.native` writes them."""

import json
from collections.abc import Mapping
from typing import Any

import flaim_core as core
from flaim._index import family_of
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.errors import CheckpointError
from flaim.weights.info import PREPROCESSING, CheckpointInfo, Preprocessing, size_of

FORMAT, FORMAT_VERSION = "flaim", 1
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether `config.json` is flaim's own."""
    return documents.get(CONFIG, {}).get("format") == FORMAT


def has_paths(tensors: Tensors) -> bool:
    """Whether the tensors' names are paths of leaves."""
    return any(name.startswith("params/") for name in tensors)


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description in flaim's `config.json` at `where`."""
    data = documents[CONFIG]
    if data["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has version {data['format_version']} of flaim's format, this flaim knows version "
            f"{FORMAT_VERSION}: upgrade flaim (it was written by {data.get('flaim_version')})"
        )
    preprocessing: dict[str, Any] = dict(data.get("preprocessing", {}))
    if unknown := set(preprocessing) - (set(PREPROCESSING) - {"input_size"}):
        raise CheckpointError(f"{where} has preprocessing that flaim does not know: {', '.join(sorted(unknown))}")
    tuples = ("mean", "std", "test_input_size")
    preprocessing |= {name: tuple(preprocessing[name]) for name in tuples if name in preprocessing}
    labels = data.get("labels")
    return CheckpointInfo(
        model=data["model"],
        architecture=data["model"],
        family=family_of(data["model"]),
        overrides=data.get("overrides", {}),
        n_classes=data["n_classes"],
        in_channels=data.get("in_channels", 3),
        preprocessing=Preprocessing(input_size=size_of(data["input_size"]), **preprocessing),
        labels=tuple(labels) if labels else None,
        license=data.get("license"),
        note=data.get("note"),
    )


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors, unchanged."""
    return dict(tensors)


def own_config(config: Mapping[str, Any] | None, metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of a weights file: `config.json`, or the file's own if that is another checkpoint's.

    Args:
        config: Content of the `config.json` beside the file; None if there is none.
        metadata: The `__metadata__` of the weights file.
    """
    try:
        own = json.loads(metadata["flaim"])
        fingerprint = own["fingerprint"]
    except (KeyError, TypeError, ValueError):  # written by another program
        return config
    return config if config is not None and config.get("fingerprint") == fingerprint else own


NATIVE = Converter("flaim", recognises, describe, translate, keeps_dtype=True)
