"""Convert transformers' configurations to options of flaim's families, where renaming is not enough."""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flaim_core as core
from flaim.options import ratio_of
from flaim.weights.converters.transformers._names import MOBILENET_V2_DEPTHS
from flaim.weights.info import size_of

Json = dict[str, Any]


class HFConfig(dict):
    """A configuration of transformers, with defaults filled in.

    Attributes:
        tensors: The checkpoint's tensors, by the names of the PyTorch model.
        refused: Options with a value that flaim's model cannot express, as `"option=value"`.
    """

    def __init__(self, options: Json, tensors: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.tensors = tensors
        self.refused: list[str] = []

    def require(self, option: str, fits: bool) -> None:
        """Refuse the value of `option` unless it fits."""
        if not fits:
            self.refused.append(f"{option}={self[option]!r}")


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


def _function(name: str, **arguments: Any) -> Json:
    return {"function": name, **arguments}


def _act(c: HFConfig) -> Json:
    c.require("hidden_act", c["hidden_act"] in _ACTIVATIONS)
    return _function(_ACTIVATIONS.get(c["hidden_act"], ""))


def _norm(name: str, eps: float) -> Json:
    default = inspect.signature(getattr(core, name)).parameters["eps"].default
    return _function(name) if eps == default else _function(name, eps=eps)


# Vision Transformers.


def _transformer(c: HFConfig) -> Json:
    """What all Vision Transformers have in common."""
    dim, sides, patch = c["hidden_size"], size_of(c["image_size"]), size_of(c["patch_size"])
    c.require("head_dim", c["head_dim"] in (None, dim // c["num_attention_heads"]))
    return {
        "mlp_ratio": ratio_of(c["intermediate_size"], dim),
        "norm": _norm("layer_norm", c["layer_norm_eps"]),
        "act": _act(c),
        "drop_remainder": any(side % part for side, part in zip(sides, patch)),
    }


def vit(c: HFConfig) -> Json:
    """ViT and DeiT, with their pooler and distillation token."""
    options = _transformer(c)
    if "pooler.dense.weight" in c.tensors:
        c.require("pooler_act", c["pooler_act"] == "tanh")
        options["pooler"] = c.tensors["pooler.dense.weight"].shape[0]
    # A distillation token without its own classifier is one more register.
    distilled = "distillation_classifier.weight" in c.tensors
    registers = 0 if distilled else int("embeddings.distillation_token" in c.tensors)
    return options | {"distilled": distilled, "num_registers": registers}


def dinov2(c: HFConfig) -> Json:
    """DINOv2, with registers or without."""
    c["intermediate_size"] = int(c["hidden_size"] * c["mlp_ratio"])
    gated = {}
    if c["use_swiglu_ffn"]:
        hidden = (int(c["intermediate_size"] * 2 / 3) + 7) // 8 * 8
        c["intermediate_size"] = 2 * hidden  # gates and values
        c["hidden_act"] = "silu"
        gated = {"block": _function("encoder_block", mlp=_function("packed_glu"))}
    pool = {"pool": _function("class_and_average_pool")} if "classifier.weight" in c.tensors else {}
    return _transformer(c) | gated | pool | {"embed_prefix": not c["num_register_tokens"]}


def clip(c: HFConfig) -> Json:
    """The vision tower of CLIP."""
    head = {"pool": _function("average_pool"), "final_norm": False} if "classifier.weight" in c.tensors else {}
    return _transformer(c) | {"pre_norm": True} | head


def siglip(c: HFConfig) -> Json:
    """The vision tower of SigLIP."""
    pool: Json = {"pool": _function("average_pool"), "fc_norm": False}
    if c["vision_use_head"] and "classifier.weight" not in c.tensors:
        pool = {"pool": _function("map_pool")}
    return _transformer(c) | {"class_token": False} | pool


# Convolutional networks.


def convnext(c: HFConfig) -> Json:
    """ConvNeXt and ConvNeXt V2."""
    options: Json = {"act": _act(c), "head_norm": _norm("layer_norm", c["layer_norm_eps"])}
    if (scale := c.get("layer_scale_init_value")) is not None:
        options["layer_scale_init"] = scale if scale > 0 else None
    return options


def resnet(c: HFConfig) -> Json:
    """ResNet."""
    widths, bottleneck = c["hidden_sizes"], c["layer_type"] == "bottleneck"
    c.require("layer_type", c["layer_type"] in ("basic", "bottleneck"))
    c.require("hidden_sizes", not bottleneck or not any(width % 4 for width in widths))
    return {
        "branch": _function(c["layer_type"]),
        "widths": [width // 4 for width in widths] if bottleneck else widths,
        "first_stride": 2 if c["downsample_in_first_stage"] else 1,
        "stride_first": bottleneck and c["downsample_in_bottleneck"],
    }


def _stack(block: str, depth: int, features: int, options: Json, **first: Any) -> list[Json]:
    pairs = {"options": [list(item) for item in options.items()], "first": [list(item) for item in first.items()]}
    return [_function("Stack", block=_function(block), depth=depth, features=features, **pairs)]


def efficientnet(c: HFConfig) -> Json:
    """EfficientNet: its stages, and its padding, which is TensorFlow's only for some image sizes."""

    def width(channels: int) -> int:
        return core.round_features(channels * c["width_coefficient"], c["depth_divisor"])

    columns = ("kernel_sizes", "in_channels", "out_channels", "strides", "expand_ratios", "num_block_repeats")
    rows = list(zip(*(c[column] for column in columns), strict=True))
    depths = [math.ceil(row[-1] * c["depth_coefficient"]) for row in rows]
    # The padding of strided convolutions is fixed here; TensorFlow's "same" depends on the map's size.
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
        stages.append(_stack(block, depth, width(after), options, **first))
    hidden = [squeeze * width(row[1]) for row in rows]
    c.require("squeeze_expansion_ratio", all(max(1, int(side)) == max(1, round(side)) for side in hidden))
    c.require("depth_divisor", c["depth_divisor"] % 8 == 0)
    c.require("hidden_dim", c["hidden_dim"] == width(1280))
    return {
        "stages": stages,
        "stem_features": width(32),
        "padding": "same" if same else _padding(3, False),
        "norm": _norm("batch_norm", c["batch_norm_eps"]),
        "act": _act(c),
    }


def _padding(kernel_size: int, symmetric: bool) -> list[list[int]]:
    side = [kernel_size // 2 - (not symmetric), kernel_size // 2]
    return [side, side]


def _is_same(strided: Sequence[bool], side: int) -> bool:
    """Whether "same", which is symmetric if a map's side is odd, pads each strided convolution as `strided` says."""
    for symmetric in strided:
        if symmetric != bool(side % 2):
            return False
        side = -(-side // 2)
    return True


def mobilenet_v2(c: HFConfig) -> Json:
    """MobileNetV2: its stages, which the configuration does not list."""

    def width(channels: int) -> int:
        return max(c["min_depth"], core.round_features(round(channels * c["depth_multiplier"])))

    c.require("min_depth", c["min_depth"] <= 8 or c["min_depth"] % 8 == 0)
    shared = {"kernel_size": 3, "se_ratio": 0.0}
    flat = {"residual": False} if width(32) == width(16) else {}
    stages = [_stack("depthwise_separable", 1, width(16), shared | flat, stride=1)]
    for depth, stride, channels in zip(MOBILENET_V2_DEPTHS[1:], (2, 2, 2, 1, 2, 1), (24, 32, 64, 96, 160, 320)):
        options = shared | {"expand_ratio": c["expand_ratio"]}
        stages.append(_stack("mbconv", depth, width(channels), options, stride=stride))
    return {
        "stages": stages,
        "stem_features": width(32),
        "head_features": 1280 if c["finegrained_output"] and c["depth_multiplier"] < 1 else width(1280),
        "padding": "same" if c["tf_padding"] else None,
        "norm": _norm("batch_norm", c["layer_norm_eps"]),
        "act": _act(c),
    }
