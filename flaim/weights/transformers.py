"""Hugging Face transformers: the models that its `config.json` describes; `transformers_names` has their names."""

import importlib
import inspect
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flaim.weights.config import NORMALISATIONS, Config, size_of
from flaim.weights.errors import CheckpointError
from flaim.weights.native import nearest, ratio_of
from flaim.weights.transformers_names import MOBILENET_V2_DEPTHS, plain, translate
from flaim_core import round_features

__all__ = ["config_from", "recognises", "translate"]

Names = Mapping[str, Any]
Json = dict[str, Any]


def recognises(tensors: Names, files: Mapping[str, Mapping]) -> bool:
    """Whether the checkpoint's `config.json` is of transformers."""
    config = files.get("config.json", {})
    return isinstance(config.get("model_type"), str) and "architecture" not in config


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "swish": "silu",
}
_GENERIC_LABEL = re.compile(r"^LABEL_\d+$")


class _Problems(list):
    """What of a configuration flaim's family has no option for."""

    def unless(self, fits: bool, option: str, value: Any) -> None:
        if not fits:
            self.append(f"{option}={value!r}")


def _function(name: str, **arguments: Any) -> Json:
    return {"function": name, **arguments}


def _activation(c: Json, kind: "_Kind", problems: _Problems) -> Json:
    name = _ACTIVATIONS.get(c["hidden_act"], "")
    module = importlib.import_module(f"flaim.models.{kind.family}")
    problems.unless(bool(name) and hasattr(module, name), "hidden_act", c["hidden_act"])
    return _function(name)


def _norm(name: str, eps: float, kind: "_Kind") -> Json:
    module = importlib.import_module(f"flaim.models.{kind.family}")
    default = inspect.signature(getattr(module, name)).parameters["eps"].default
    return _function(name) if eps == default else _function(name, eps=eps)


def _transformer(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    """What all Vision Transformers have in common."""
    dim, heads = c["hidden_size"], c["num_attention_heads"]
    problems.unless(c.get("head_dim") in (None, dim // heads), "head_dim", c.get("head_dim"))
    patch, image = c["patch_size"], size_of(c["image_size"])
    hidden = c.get("intermediate_size") or int(dim * c["mlp_ratio"])
    return {
        "dim": dim,
        "depth": c["num_hidden_layers"],
        "num_heads": heads,
        "patch_size": patch,
        "mlp_ratio": ratio_of(hidden, dim),
        "norm": _norm("layer_norm", c["layer_norm_eps"], kind),
        "act": _activation(c, kind, problems),
        "drop_remainder": any(side % p for side, p in zip(image, size_of(patch))),
        "drop_path_rate": c.get("drop_path_rate", 0.0),
    }


def _vit(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    options = _transformer(c, names, kind, problems) | {"qkv_bias": c["qkv_bias"]}
    if "pooler.dense.weight" in names:
        problems.unless(c["pooler_act"] == "tanh", "pooler_act", c["pooler_act"])
        options["pooler"] = names["pooler.dense.weight"].shape[0]
    if "distillation_classifier.weight" in names:
        return options | {"distilled": True}
    # Without a classifier of its own, a distillation token is one more register.
    return options | {"distilled": False, "num_registers": int("embeddings.distillation_token" in names)}


def _dinov2(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    options = _transformer(c, names, kind, problems) | {
        "qkv_bias": c["qkv_bias"],
        "layer_scale_init": c["layerscale_value"],
        "num_registers": c.get("num_register_tokens", 0),
        "embed_prefix": not c.get("num_register_tokens"),
    }
    if c["use_swiglu_ffn"]:
        hidden = (int(int(c["hidden_size"] * c["mlp_ratio"]) * 2 / 3) + 7) // 8 * 8
        options["mlp_ratio"] = ratio_of(2 * hidden, c["hidden_size"])  # gates and values
        options["block"] = _function("encoder_block", mlp=_function("packed_glu"))
        options["act"] = _function("silu")
    if "classifier.weight" in names:
        options["pool"] = _function("class_and_average_pool")
    return options


def _clip(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    options = _transformer(c, names, kind, problems) | {"pre_norm": True}
    if "classifier.weight" in names:
        options |= {"pool": _function("average_pool"), "final_norm": False}
    return options


def _siglip(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    options = _transformer(c, names, kind, problems) | {"class_token": False}
    if c["vision_use_head"] and "classifier.weight" not in names:
        return options | {"pool": _function("map_pool")}
    return options | {"pool": _function("average_pool"), "fc_norm": False}


def _swin(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    return {
        "dim": c["embed_dim"],
        "depths": list(c["depths"]),
        "num_heads": list(c["num_heads"]),
        "window": c["window_size"],
        "patch_size": c["patch_size"],
        "mlp_ratio": c["mlp_ratio"],
        "qkv_bias": c["qkv_bias"],
        "drop_path_rate": c["drop_path_rate"],
    }


def _convnext(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    options = {
        "depths": list(c["depths"]),
        "dims": list(c["hidden_sizes"]),
        "act": _activation(c, kind, problems),
        "head_norm": _norm("layer_norm", c["layer_norm_eps"], kind),
        "drop_path_rate": c["drop_path_rate"],
    }
    if "layer_scale_init_value" in c:
        options["layer_scale_init"] = c["layer_scale_init_value"] if c["layer_scale_init_value"] > 0 else None
    return options


def _resnet(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    widths, bottleneck = list(c["hidden_sizes"]), c["layer_type"] == "bottleneck"
    problems.unless(bottleneck or c["layer_type"] == "basic", "layer_type", c["layer_type"])
    if bottleneck:
        problems.unless(not any(width % 4 for width in widths), "hidden_sizes", widths)
        widths = [width // 4 for width in widths]
    return {
        "branch": _function(c["layer_type"]),
        "depths": list(c["depths"]),
        "widths": widths,
        "stem_width": c["embedding_size"],
        "first_stride": 2 if c["downsample_in_first_stage"] else 1,
        "stride_first": bottleneck and c["downsample_in_bottleneck"],
    }


def _stack(block: str, depth: int, features: int, options: Json, **first: Any) -> Json:
    pairs = {"options": [list(item) for item in options.items()], "first": [list(item) for item in first.items()]}
    return _function("Stack", block=_function(block), depth=depth, features=features, **pairs)


def _efficientnet(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    def width(channels: int) -> int:
        return round_features(channels * c["width_coefficient"], c["depth_divisor"])

    columns = ("kernel_sizes", "in_channels", "out_channels", "strides", "expand_ratios", "num_block_repeats")
    rows = list(zip(*(c[column] for column in columns), strict=True))
    depths = [math.ceil(row[-1] * c["depth_coefficient"]) for row in rows]
    # Strided convolutions pad as these say, whatever the map's size; TensorFlow's "same" goes by the size.
    symmetric = [start in c["depthwise_padding"] for start in itertools.accumulate(depths, initial=0)]
    strided = [False, *(s for s, row in zip(symmetric, rows) if row[3] == 2)]
    same = all(_is_same(strided, side) for side in size_of(c["image_size"]))

    stages, squeeze = [], c["squeeze_expansion_ratio"]
    for (kernel, before, after, stride, expand, _), depth, centred in zip(rows, depths, symmetric):
        block = "depthwise_separable" if expand == 1 else "mbconv"
        options = {"kernel_size": kernel, **({} if expand == 1 else {"expand_ratio": expand}), "se_ratio": squeeze}
        first: Json = {"stride": stride}
        if stride == 1 and width(before) == width(after):
            first["residual"] = False
        if not same:
            options["padding"] = "same"
            first |= {"padding": _padding(kernel, centred)} if stride == 2 else {}
        hidden = squeeze * width(before)
        problems.unless(max(1, int(hidden)) == max(1, round(hidden)), "squeeze_expansion_ratio", squeeze)
        stages.append([_stack(block, depth, width(after), options, **first)])
    problems.unless(c["depth_divisor"] % 8 == 0, "depth_divisor", c["depth_divisor"])
    problems.unless(width(1280) == c["hidden_dim"], "hidden_dim", c["hidden_dim"])
    return {
        "stages": stages,
        "stem_features": width(32),
        "head_features": c["hidden_dim"],
        "padding": "same" if same else _padding(3, False),
        "norm": _norm("batch_norm", c["batch_norm_eps"], kind),
        "act": _activation(c, kind, problems),
        "drop_rate": c["dropout_rate"],
        "drop_path_rate": c["drop_connect_rate"],
    }


def _padding(kernel_size: int, symmetric: bool) -> list[list[int]]:
    side = [kernel_size // 2 - (not symmetric), kernel_size // 2]
    return [side, side]


def _is_same(strided: Sequence[bool], side: int) -> bool:
    """Whether "same" pads symmetrically where `strided` says so, which is where a map's side is odd."""
    for symmetric in strided:
        if symmetric != bool(side % 2):
            return False
        side = -(-side // 2)
    return True


def _mobilenet_v2(c: Json, names: Names, kind: "_Kind", problems: _Problems) -> Json:
    def width(channels: int) -> int:
        return max(c["min_depth"], round_features(round(channels * c["depth_multiplier"])))

    problems.unless(c["min_depth"] <= 8 or c["min_depth"] % 8 == 0, "min_depth", c["min_depth"])
    stem = width(32)
    flat = {"residual": False} if stem == width(16) else {}
    stages = [[_stack("depthwise_separable", 1, width(16), {"kernel_size": 3, "se_ratio": 0.0, **flat}, stride=1)]]
    for depth, stride, channels in zip(MOBILENET_V2_DEPTHS[1:], (2, 2, 2, 1, 2, 1), (24, 32, 64, 96, 160, 320)):
        options = {"kernel_size": 3, "expand_ratio": c["expand_ratio"], "se_ratio": 0.0}
        stages.append([_stack("mbconv", depth, width(channels), options, stride=stride)])
    return {
        "stages": stages,
        "stem_features": stem,
        "head_features": 1280 if c["finegrained_output"] and c["depth_multiplier"] < 1 else width(1280),
        "padding": "same" if c["tf_padding"] else None,
        "norm": _norm("batch_norm", c["layer_norm_eps"], kind),
        "act": _activation(c, kind, problems),
        "drop_rate": c["classifier_dropout_prob"],
    }


@dataclass(frozen=True)
class _Kind:
    """A type of transformers' models.

    Attributes:
        family: flaim's family.
        options: From its configuration, the classes' own defaults included, to options of the family's function.
        variants: A pattern of the architectures that its models are named after.
        defaults: What a configuration may leave out.
        fixed: Options that flaim's family has no counterpart of, with the value that it has.
        processor: Likewise, what `preprocessor_config.json` may leave out.
            `square` is whether one number is the size of both sides instead of the shorter one.
        any_size: Whether the same variables serve images of any size.
    """

    family: str
    options: Callable[[Json, Names, "_Kind", _Problems], Json]
    variants: str
    defaults: Json
    fixed: Json = field(default_factory=dict)
    processor: Json = field(default_factory=dict)
    any_size: bool = False


_CROPPING = {"size", "crop_size", "crop_pct", "do_center_crop"}
_INCEPTION, _CLIP_STATS, _IMAGENET = (
    dict(zip(("image_mean", "image_std"), NORMALISATIONS[name])) for name in ("inception", "clip", "imagenet")
)
_BILINEAR, _BICUBIC = {"resample": 2, "square": False}, {"resample": 3, "square": False}
_PIL = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")

_BASE: Json = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
}
_VIT = _Kind(
    "vit",
    _vit,
    r"^vit_(tiny|small|base|large|huge)_patch\d+_\d+$",
    {**_BASE, "layer_norm_eps": 1e-12, "qkv_bias": True, "pooler_act": "tanh"},
    processor={**_INCEPTION, **_BILINEAR, "square": True},
)
_DINOV2 = _Kind(
    "vit",
    _dinov2,
    r"^vit_(small|base|large|giant)_patch14_dinov2$",
    {
        **{name: value for name, value in _BASE.items() if name != "intermediate_size"},
        "patch_size": 14,
        "mlp_ratio": 4,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "use_swiglu_ffn": False,
    },
    processor={**_IMAGENET, **_BICUBIC, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
)
_CLIP = _Kind(
    "vit",
    _clip,
    r"^vit_\w+_clip_(quickgelu_)?\d+$",
    {**_BASE, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    processor={**_CLIP_STATS, **_BICUBIC, "size": {"shortest_edge": 224}, "do_center_crop": True},
)
_SIGLIP = _Kind(
    "vit",
    _siglip,
    r"^vit_\w+_siglip_(gap_)?\d+$",
    {**_BASE, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True},
    processor={**_INCEPTION, **_BICUBIC, "square": True},
)
_CONVNEXT_V2 = _Kind(
    "convnext",
    _convnext,
    r"^convnextv2_[a-z]+$",
    {
        "hidden_sizes": (96, 192, 384, 768),
        "depths": (3, 3, 9, 3),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "drop_path_rate": 0.0,
        "image_size": 224,
        "patch_size": 4,
        "num_channels": 3,
    },
    {"patch_size": 4},
    {**_IMAGENET, **_BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}},
    any_size=True,
)
# By `model_type`.
_KINDS: dict[str, _Kind] = {
    "vit": _VIT,
    "deit": replace(
        _VIT,
        variants=r"^deit_(tiny|small|base)_(distilled_)?patch16_\d+$",
        processor={**_IMAGENET, **_BICUBIC, "square": True, "size": 256, "crop_size": 224, "do_center_crop": True},
    ),
    "dinov2": _DINOV2,
    "dinov2_with_registers": replace(
        _DINOV2,
        variants=r"^vit_(small|base|large|giant)_patch14_reg4_dinov2$",
        defaults={**_DINOV2.defaults, "patch_size": 16, "num_register_tokens": 4},
    ),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "swin": _Kind(
        "swin",
        _swin,
        r"^swin_(tiny|small|base|large)_patch4_",
        {
            "embed_dim": 96,
            "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24),
            "window_size": 7,
            "mlp_ratio": 4.0,
            "qkv_bias": True,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "drop_path_rate": 0.1,
            "image_size": 224,
            "patch_size": 4,
            "num_channels": 3,
        },
        {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "use_absolute_embeddings": False},
        {**_IMAGENET, **_BICUBIC, "square": True},
    ),
    "convnext": replace(
        _CONVNEXT_V2,
        variants=r"^convnext_(tiny|small|base|large|xlarge)$",
        defaults={**_CONVNEXT_V2.defaults, "layer_scale_init_value": 1e-6},
    ),
    "convnextv2": _CONVNEXT_V2,
    "resnet": _Kind(
        "resnet",
        _resnet,
        r"^resnet\d+$",
        {
            "embedding_size": 64,
            "hidden_sizes": (256, 512, 1024, 2048),
            "depths": (3, 4, 6, 3),
            "layer_type": "bottleneck",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            "hidden_act": "relu",
            "image_size": 224,
            "num_channels": 3,
        },
        {"hidden_act": "relu"},
        {**_IMAGENET, **_BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}},
        any_size=True,
    ),
    "efficientnet": _Kind(
        "efficientnet",
        _efficientnet,
        r"^tf_efficientnet_b\d$",
        {
            "image_size": 600,
            "num_channels": 3,
            "width_coefficient": 2.0,
            "depth_coefficient": 3.1,
            "depth_divisor": 8,
            "kernel_sizes": (3, 3, 5, 3, 5, 5, 3),
            "in_channels": (32, 16, 24, 40, 80, 112, 192),
            "out_channels": (16, 24, 40, 80, 112, 192, 320),
            "depthwise_padding": (),
            "strides": (1, 2, 2, 2, 1, 2, 1),
            "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
            "expand_ratios": (1, 6, 6, 6, 6, 6, 6),
            "squeeze_expansion_ratio": 0.25,
            "hidden_act": "swish",
            "hidden_dim": 2560,
            "batch_norm_eps": 1e-3,
            "dropout_rate": 0.5,
            "drop_connect_rate": 0.2,
        },
        {"pooling_type": "mean"},
        {**_IMAGENET, **_BICUBIC, "square": True},
        any_size=True,
    ),
    "mobilenet_v2": _Kind(
        "efficientnet",
        _mobilenet_v2,
        r"^mobilenetv2_\d+$",
        {
            "image_size": 224,
            "num_channels": 3,
            "depth_multiplier": 1.0,
            "min_depth": 8,
            "expand_ratio": 6,
            "finegrained_output": True,
            "tf_padding": True,
            "hidden_act": "relu6",
            "layer_norm_eps": 1e-3,
            "classifier_dropout_prob": 0.8,
        },
        {"depth_divisible_by": 8, "first_layer_is_expansion": True, "output_stride": 32},
        {**_INCEPTION, **_BILINEAR, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
        any_size=True,
    ),
}
_CLASSIFIER = re.compile(r"^(cls_classifier|classifier|classifier\.1|visual_projection)\.weight$")


def config_from(tensors: Names, files: Mapping[str, Mapping], where: str) -> Config:
    """The configuration in `config.json` and `preprocessor_config.json`, of the checkpoint at `where`.

    Raises:
        CheckpointError: flaim has no such model, or its model lacks options that this one needs.
    """
    data = files["config.json"]
    model_type = data["model_type"]
    if model_type not in _KINDS:
        raise CheckpointError(
            f"{where} describes a {model_type} of transformers; flaim reads {', '.join(_KINDS)} (and timm's models)"
        )
    kind = _KINDS[model_type]
    c = {**kind.defaults, **data}
    if "vision_config" in data or "vision_config_dict" in data:  # a whole CLIP or SigLIP, of which this is one half
        c = {**kind.defaults, **(data.get("vision_config") or {}), **(data.get("vision_config_dict") or {})}
    names = plain(tensors)
    problems = _Problems()
    for option, value in kind.fixed.items():
        problems.unless(c.get(option, value) == value, option, c.get(option))
    problems.unless(not c.get("pruned_heads"), "pruned_heads", c.get("pruned_heads"))
    options = kind.options(c, names, kind, problems)
    if problems:
        raise CheckpointError(
            f"{where} describes a {model_type} with options that flaim's does not have: {', '.join(problems)}"
        )
    classifier = next((name for name in names if _CLASSIFIER.search(name)), None)
    n_classes = -1 if classifier is None else names[classifier].shape[0]
    processor = files.get("preprocessor_config.json", {})
    # What the class crops to by default goes with the size that it resizes to by default.
    unsaid = {n: v for n, v in kind.processor.items() if n not in _CROPPING or "size" not in processor}
    preprocessing = _preprocessing({**unsaid, **processor})
    size = preprocessing.pop("input_size", None)
    if not kind.any_size or "size" not in processor:
        size = size_of(c["image_size"])
    architecture, overrides = nearest(kind.family, kind.variants, options, size)
    return Config(
        model=architecture,
        family=kind.family,
        architecture=architecture,
        overrides=overrides,
        n_classes=n_classes,
        input_size=size,
        in_channels=c["num_channels"],
        labels=_labels(data, n_classes),
        **preprocessing,
    )


def _labels(data: Mapping[str, Any], n_classes: int) -> tuple[str, ...] | None:
    labels = {int(index): str(label) for index, label in (data.get("id2label") or {}).items()}
    if not labels or sorted(labels) != list(range(n_classes)) or all(map(_GENERIC_LABEL.match, labels.values())):
        return None
    return tuple(labels[i] for i in range(n_classes))


def _preprocessing(p: Json) -> Json:
    """Evaluation preprocessing from `preprocessor_config.json`."""
    mean, std = p["image_mean"], p["image_std"]
    if not p.get("do_normalize", True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    scale = 255 * (p.get("rescale_factor", 1 / 255) if p.get("do_rescale", True) else 1.0)
    offset = 1.0 if p.get("rescale_offset") else 0.0
    if p.get("include_top"):  # EfficientNet's divides by the deviation twice
        std = [value * value for value in std]
    fields: Json = {
        "mean": tuple((value + offset) / scale for value in mean),
        "std": tuple(value / scale for value in std),
        "interpolation": _PIL[p["resample"]],
        "crop_pct": 1.0,
    }
    if "size" not in p or not p.get("do_resize", True):
        return fields | {"crop_mode": "squash"}
    edge, size = _edge(p["size"]), _sides(p["size"])
    square = edge is None or (isinstance(p["size"], int) and p["square"])
    if "crop_pct" in p and edge and p["crop_pct"]:  # ConvNeXt's: small images are cropped, large ones are not
        square = edge >= 384
        fields["crop_pct"] = 1.0 if square else p["crop_pct"]
    elif p.get("do_center_crop"):
        resized, size = size, _sides(p.get("crop_size", p["size"]))
        fields["crop_pct"] = _fraction(size[0], resized[0])
    return fields | {"input_size": size, "crop_mode": "squash" if square else "center"}


def _edge(size: Any) -> int | None:
    """The one number that a size of transformers' may be given as."""
    return size if isinstance(size, int) else size.get("shortest_edge")


def _sides(size: Any) -> tuple[int, int]:
    """Height and width."""
    edge = _edge(size)
    return (edge, edge) if edge else (size["height"], size["width"])


def _fraction(crop: int, resized: int) -> float:
    """The part of `resized` that `crop` is, of which `floor(crop / part)` makes `resized` again."""
    part = crop / resized
    return part if math.floor(crop / part) == resized else math.nextafter(part, 0.0)
