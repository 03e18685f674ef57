"""timm's checkpoints: their tensors' names, current and older, and their configurations.

What only one family's checkpoints need is defined in the family: `Timm` and `OlderNames` of `flaim.family`.
"""

import re
from collections.abc import Mapping
from typing import Any

import flaim_core as core
from flaim._index import family_of
from flaim.family import Family, Timm, rename
from flaim.registry import family
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo, Preprocessing, size_of

# flaim's leaf name to torch's; every other name is the same in both.
_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}

# torch's layout by flaim's.
TORCH_LAYOUTS = {"io": "oi", "wio": "oiw", "hwio": "oihw"}

# Buffers that torch modules store beside parameters and statistics; flaim's models compute them.
_BUFFERS = re.compile(
    r"(^|\.)(num_batches_tracked|relative_position_index|relative_coords_log|relative_coords_table|attn_mask)$"
)

# Prefixes that torch's data parallelism and compiler add to every name.
_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")


def tensor_name(path: str) -> str:
    """timm's name of the leaf at `path`: `"params/layer1/0/conv1/kernel"` is `"layer1.0.conv1.weight"`."""
    *parents, name = path.split("/")[1:]
    return ".".join([*parents, _NAMES.get(name, name)])


def by_path(tensors: Tensors, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """Tensors with timm's names by leaf path; buffers are dropped, tensors that belong to no leaf keep their names."""
    paths = {tensor_name(path): path for path in leaves}
    return {paths.get(name, name): value for name, value in tensors.items() if not _BUFFERS.search(name)}


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by leaf path, also from files with older names."""
    return by_path(renamed(tensors, family(info.family)), leaves)


def renamed(tensors: Tensors, family: Family) -> dict[str, Any]:
    """The tensors under timm's current names."""
    tensors = {_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    for form in family.older_names:
        if any(re.search(form.marker, name) for name in tensors):
            pairs = ((rename(name, form.rules), value) for name, value in tensors.items())
            tensors = {name: value for name, value in pairs if name is not None}
            if form.finish:
                tensors = form.finish(tensors)
    return tensors


# timm's constructor arguments that do not change what a checkpoint computes.
_NEUTRAL_ARGS = {
    "drop_rate",
    "drop_path_rate",
    "dynamic_img_pad",
    "dynamic_img_size",
    "strict_img_size",
}


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether `config.json` is timm's."""
    return isinstance(documents.get("config.json", {}).get("architecture"), str)


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description in timm's `config.json` at `where`.

    Raises:
        CheckpointError: The model has options that flaim's lacks.
    """
    data = documents["config.json"]
    cfg = data.get("pretrained_cfg") or data  # older configurations are flat
    args = dict(data.get("model_args") or {})
    architecture = data["architecture"]
    family_name = family_of(architecture)
    size = cfg.get("input_size", (3, 224, 224))
    n_classes = args.pop("num_classes", data.get("num_classes", cfg.get("num_classes", 1000)))
    input_size, in_channels = size_of(args.pop("img_size", None) or size), args.pop("in_chans", size[0])
    return CheckpointInfo(
        model=architecture,
        params=cfg.get("tag") or "",
        family=family_name,
        architecture=architecture,
        overrides=_overrides(family(family_name).timm or Timm(()), architecture, args, where),
        n_classes=n_classes or -1,
        in_channels=in_channels,
        preprocessing=Preprocessing(input_size=input_size, **_preprocessing(cfg)),
        labels=_labels(data, cfg),
        license=cfg.get("license"),
    )


def _preprocessing(cfg: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: cfg[name] for name in ("interpolation", "crop_pct", "crop_mode", "test_crop_pct") if name in cfg}
    fields |= {name: tuple(cfg[name]) for name in ("mean", "std") if name in cfg}
    if cfg.get("test_input_size"):
        fields["test_input_size"] = size_of(cfg["test_input_size"])
    return fields


def _labels(data: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = data.get("label_names") or cfg.get("label_names")
    if isinstance(names, Mapping):  # class index to name
        names = [names.get(str(i)) for i in range(len(names))]
    if not names or None in names:
        return None
    descriptions = data.get("label_descriptions") or cfg.get("label_descriptions") or {}
    return tuple(descriptions.get(name, name) for name in names)


def _overrides(timm: Timm, architecture: str, args: Mapping[str, Any], where: str) -> dict[str, Any]:
    """timm's constructor arguments as options of flaim's model function."""
    known = timm.args
    overrides, unknown = {}, []
    for name, value in args.items():
        averages = name == "global_pool" and name not in known and value == "avg"  # as all families but ViT do
        if name in _NEUTRAL_ARGS or averages:
            continue
        option, meanings = known.get(name, (None, None))
        if option is None or (meanings is not None and value not in meanings):
            unknown.append(f"{name}={value!r}")
        else:
            overrides[option] = value if meanings is None else meanings[value]
    if unknown:
        raise CheckpointError(
            f"{where} describes a {architecture} with options that flaim's does not have: {', '.join(unknown)}"
        )
    return overrides


TIMM = Converter("timm", recognises, describe, translate, layouts=TORCH_LAYOUTS, name_of=tensor_name)
