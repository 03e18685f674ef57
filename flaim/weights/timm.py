"""timm's checkpoints: the names of their tensors, older forms of them, and the configurations that come with them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flaim.weights.config import Config, size_of
from flaim.weights.errors import CheckpointError

# flaim's leaf name to torch's; every other name is the same in both.
_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}

# Which of torch's axes each of flaim's is, by layout: torch has (out, in, height, width).
_AXES = {"": None, "io": (1, 0), "wio": (2, 1, 0), "hwio": (2, 3, 1, 0)}

# Buffers that torch modules store beside parameters and statistics; models compute them.
_BUFFERS = re.compile(r"(^|\.)(num_batches_tracked|relative_position_index|relative_coords_log|attn_mask)$")

# What torch's data parallelism and compiler put before every name.
_WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")


def tensor_name(path: str) -> str:
    """timm's name of the leaf at `path`: `"params/layer1/0/conv1/kernel"` is `"layer1.0.conv1.weight"`."""
    *parents, name = path.split("/")[1:]
    return ".".join([*parents, _NAMES.get(name, name)])


def axes(layout: str) -> tuple[int, ...] | None:
    """The transposition that turns a tensor of torch's into a leaf of this layout; None where they agree."""
    return _AXES[layout]


class Form(NamedTuple):
    """An older form of a family's checkpoints: how it is recognised, and the way to today's names.

    Attributes:
        marker: A pattern that one of the names fits if and only if the file has this form.
        rules: (pattern, replacement) pairs, applied to each name one after the other; a name that fits a pattern with
            replacement None is left out.
        finish: What names alone cannot say, applied to the renamed tensors.
    """

    marker: str
    rules: tuple[tuple[str, str | Callable | None], ...]
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None


def _add_head_bias(name: str) -> Callable:
    """CLIP's projection has no bias, timm's classifier in its place has one: zero."""

    def finish(tensors):
        if (weight := tensors.get(f"{name}.weight")) is not None:
            tensors.setdefault(f"{name}.bias", np.zeros(weight.shape[0], weight.dtype))
        return tensors

    return finish


def _finish_openai_clip(tensors):
    tensors["cls_token"] = tensors["cls_token"][None, None]
    tensors["pos_embed"] = tensors["pos_embed"][None]
    if "head.weight" in tensors:
        tensors["head.weight"] = tensors["head.weight"].T
    return _add_head_bias("head")(tensors)


def _finish_dinov2(tensors):
    # With registers, timm folds the class token's position embedding into the token.
    if "reg_token" in tensors:
        position = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    return tensors


_NEXT_LAYER = (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample")

# The files in timm's repositories have timm's names, but for those that were uploaded as their authors named them.
FORMS: dict[str, tuple[Form, ...]] = {
    "inception_v3": (Form(r"^AuxLogits\.", ((r"^AuxLogits\.", None),)),),  # a classifier for training alone
    "convnext": (
        Form(  # OpenCLIP around timm's tower
            r"^visual\.trunk\.stem\.0\.weight$",
            (
                (r"^(?!visual\.)", None),
                (r"^visual\.trunk\.", ""),
                (r"^visual\.head\.proj\.", "head.fc."),
                (r"^visual\.head\.mlp\.fc1\.", "head.pre_logits.fc."),
                (r"^visual\.head\.mlp\.fc2\.", "head.fc."),
            ),
            _add_head_bias("head.fc"),
        ),
        Form(  # the original ones
            r"^downsample_layers\.0\.0\.weight$",
            (
                (r"^(projectors|norms)\.", None),
                (r"^downsample_layers\.0\.", "stem."),
                (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
                (r"^downsample_layers\.(\d+)\.(\d+)\.", r"stages.\1.downsample.\2."),
                (r"\.dwconv\.", ".conv_dw."),
                (r"\.pwconv(\d)\.", r".mlp.fc\1."),
                (r"\.grn\.beta$", ".mlp.grn.bias"),
                (r"\.grn\.gamma$", ".mlp.grn.weight"),
                (r"^head\.", "head.fc."),
                (r"^norm\.", "head.norm."),
            ),
        ),
    ),
    "swin": (
        Form(  # the original ones: a stage ends with its downsampling, in timm it begins with it
            r"^layers\.0\.downsample\.reduction\.weight$",
            (_NEXT_LAYER, (r"^head\.", "head.fc.")),
        ),
    ),
    "vit": (
        Form(  # OpenAI's CLIP, and OpenCLIP's own tower
            r"^visual\.class_embedding$",
            (
                (r"^(?!visual\.)", None),
                (r"^visual\.", ""),
                (r"^conv1\.", "patch_embed.proj."),
                (r"^class_embedding$", "cls_token"),
                (r"^positional_embedding$", "pos_embed"),
                (r"^transformer\.resblocks\.", "blocks."),
                (r"^ln_pre\.", "norm_pre."),
                (r"^ln_post\.", "norm."),
                (r"\.ln_(\d)\.", r".norm\1."),
                (r"\.in_proj_", ".qkv."),
                (r"\.out_proj\.", ".proj."),
                (r"\.c_fc\.", ".fc1."),
                (r"\.c_proj\.", ".fc2."),
                (r"^proj$", "head.weight"),
            ),
            _finish_openai_clip,
        ),
        Form(  # OpenCLIP around timm's tower
            r"^visual\.trunk\.",
            (
                (r"^(?!visual\.)", None),
                (r"^visual\.trunk\.", ""),
                (r"^visual\.head\.proj\.", "head."),
            ),
            _add_head_bias("head"),
        ),
        Form(  # DINOv2
            r"^mask_token$",
            (
                (r"^mask_token$", None),
                (r"^register_tokens$", "reg_token"),
                (r"\.mlp\.w12\.", ".mlp.fc1."),
                (r"\.mlp\.w3\.", ".mlp.fc2."),
            ),
            _finish_dinov2,
        ),
        Form(r"\.gamma_1$", ((r"\.gamma_(\d)$", r".ls\1.gamma"),)),  # DeiT-3
        Form(r"^pre_logits\.", ((r"^pre_logits\.", None),)),  # a representation layer that timm has given up
    ),
}


def translate(family: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors under the names that timm gives them today, without the buffers."""
    tensors = {_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    for form in FORMS.get(family, ()):
        if any(re.search(form.marker, name) for name in tensors):
            renamed = ((rename(name, form.rules), value) for name, value in tensors.items())
            tensors = {name: value for name, value in renamed if name is not None}
            if form.finish:
                tensors = form.finish(tensors)
    return {name: value for name, value in tensors.items() if not _BUFFERS.search(name)}


def rename(name: str, rules: Sequence[tuple[str, str | Callable | None]]) -> str | None:
    """The name after `rules`, as a `Form` has them; None where it is left out."""
    for pattern, replacement in rules:
        if replacement is None:
            if re.search(pattern, name):
                return None
        else:
            name = re.sub(pattern, replacement, name)
    return name


def may_be_unused(architecture: str, name: str) -> bool:
    """Whether a file for `architecture` may hold the tensor `name` though the model has no use for it.

    SigLIP towers that average their tokens may come with the attention pooling that they were trained with; a model
    may be wanted without the pooler that its checkpoint has.
    """
    return name.startswith("pooler.") or ("siglip" in architecture and name.startswith("attn_pool."))


def interpolation(architecture: str) -> str:
    """How timm resamples the architecture's position embeddings; see `resample_position_embedding`."""
    if re.search(r"(base|huge)_patch16_radio_v3", architecture):
        return "bilinear_aligned"
    return "bilinear" if "flexi" in architecture or "radio" in architecture else "bicubic"


# timm's constructor arguments that do not change what a checkpoint computes.
_NEUTRAL_ARGS = {
    "drop_rate",
    "drop_path_rate",
    "dynamic_img_pad",
    "dynamic_img_size",
    "strict_img_size",
}

# By family, timm's other arguments as options of flaim's model function, and what their values mean where they do not
# mean the same.
_POOLS = {
    "avg": {"function": "average_pool"},
    "map": {"function": "map_pool"},
    "token": {"function": "class_token_pool"},
}
ARGS: dict[str, dict[str, tuple[str, dict | None]]] = {
    "swin": {
        "depths": ("depths", None),
        "embed_dim": ("dim", None),
        "mlp_ratio": ("mlp_ratio", None),
        "num_heads": ("num_heads", None),
        "patch_size": ("patch_size", None),
        "qkv_bias": ("qkv_bias", None),
        "window_size": ("window", None),
    },
    "vit": {
        "class_token": ("class_token", None),
        "depth": ("depth", None),
        "embed_dim": ("dim", None),
        "fc_norm": ("fc_norm", None),
        "final_norm": ("final_norm", None),
        "global_pool": ("pool", _POOLS),
        "init_values": ("layer_scale_init", None),
        "mlp_ratio": ("mlp_ratio", None),
        "no_embed_class": ("embed_prefix", {True: False, False: True}),
        "num_heads": ("num_heads", None),
        "patch_size": ("patch_size", None),
        "pool_include_prefix": ("pool_prefix", None),
        "pre_norm": ("pre_norm", None),
        "proj_bias": ("proj_bias", None),
        "qkv_bias": ("qkv_bias", None),
        "reg_tokens": ("num_registers", None),
    },
}


def config_from(data: Mapping[str, Any], family: str, where: str) -> Config:
    """The configuration in a `config.json` of timm's, found at `where`, of a model of `family`.

    Raises:
        CheckpointError: The model has options that flaim's lacks.
    """
    cfg = data.get("pretrained_cfg") or data  # older ones are flat
    args = dict(data.get("model_args") or {})
    architecture = data["architecture"]
    size = cfg.get("input_size", (3, 224, 224))
    n_classes = args.pop("num_classes", data.get("num_classes", cfg.get("num_classes", 1000)))
    config = Config(
        model=architecture,
        params=cfg.get("tag") or "",
        family=family,
        architecture=architecture,
        n_classes=n_classes or -1,
        input_size=size_of(args.pop("img_size", None) or size),
        in_channels=args.pop("in_chans", size[0]),
        labels=_labels(data, cfg),
        license=cfg.get("license"),
        **_preprocessing(cfg),
    )
    return config.replace(overrides=_overrides(family, architecture, args, where))


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


def _overrides(family: str, architecture: str, args: Mapping[str, Any], where: str) -> dict[str, Any]:
    """timm's constructor arguments as options of flaim's model function."""
    known = ARGS.get(family, {})
    overrides, unknown = {}, []
    for name, value in args.items():
        averages = name == "global_pool" and name not in known and value == "avg"  # so does every family but ViT
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
