"""EfficientNet and MobileNetV2."""

import itertools
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import flaim_core as core
from flaim import registry
from flaim.family import OlderNames, rename
from flaim.options import options_from
from flaim.weights.converters.transformers._model_type import (
    BICUBIC,
    BILINEAR,
    IMAGENET,
    INCEPTION,
    HFConfig,
    Json,
    ModelType,
    act,
    function,
    norm,
)
from flaim.weights.converters.transformers._names import NORMED
from flaim.weights.info import CheckpointInfo, size_of

# Number of blocks in each stage.
_MOBILENET_V2_DEPTHS = (1, 2, 3, 4, 3, 3, 1)


def _stack(block: str, depth: int, features: int, options: Json, **first: Any) -> list[Json]:
    pairs = {"options": [list(item) for item in options.items()], "first": [list(item) for item in first.items()]}
    return [function("Stack", block=function(block), depth=depth, features=features, **pairs)]


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
        "norm": norm("batch_norm", c["batch_norm_eps"]),
        "act": act(c),
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
    for depth, stride, channels in zip(_MOBILENET_V2_DEPTHS[1:], (2, 2, 2, 1, 2, 1), (24, 32, 64, 96, 160, 320)):
        options = shared | {"expand_ratio": c["expand_ratio"]}
        stages.append(_stack("mbconv", depth, width(channels), options, stride=stride))
    return {
        "stages": stages,
        "stem_features": width(32),
        "head_features": 1280 if c["finegrained_output"] and c["depth_multiplier"] < 1 else width(1280),
        "padding": "same" if c["tf_padding"] else None,
        "norm": norm("batch_norm", c["layer_norm_eps"]),
        "act": act(c),
    }


# fmt: off
MODEL_TYPES = {
    "efficientnet": ModelType(
        "efficientnet",
        r"^tf_efficientnet_b\d$",
        {
            "image_size": 600, "width_coefficient": 2.0, "depth_coefficient": 3.1, "depth_divisor": 8,
            "kernel_sizes": (3, 3, 5, 3, 5, 5, 3), "in_channels": (32, 16, 24, 40, 80, 112, 192),
            "out_channels": (16, 24, 40, 80, 112, 192, 320), "depthwise_padding": (),
            "strides": (1, 2, 2, 2, 1, 2, 1), "num_block_repeats": (1, 2, 2, 3, 3, 4, 1),
            "expand_ratios": (1, 6, 6, 6, 6, 6, 6), "squeeze_expansion_ratio": 0.25, "hidden_act": "swish",
            "hidden_dim": 2560, "pooling_type": "mean", "batch_norm_eps": 1e-3, "dropout_rate": 0.5,
            "drop_connect_rate": 0.2,
        },
        same={"head_features": "hidden_dim", "drop_rate": "dropout_rate", "drop_path_rate": "drop_connect_rate"},
        fixed=("pooling_type",),
        more=efficientnet,
        processor={**IMAGENET, **BICUBIC, "square": True, "include_top": True},
        any_size=True,
    ),
    "mobilenet_v2": ModelType(
        "efficientnet",
        r"^mobilenetv2_\d+$",
        {
            "image_size": 224, "depth_multiplier": 1.0, "depth_divisible_by": 8, "min_depth": 8, "expand_ratio": 6,
            "output_stride": 32, "first_layer_is_expansion": True, "finegrained_output": True, "tf_padding": True,
            "hidden_act": "relu6", "layer_norm_eps": 1e-3, "classifier_dropout_prob": 0.8,
        },
        same={"drop_rate": "classifier_dropout_prob"},
        fixed=("depth_divisible_by", "first_layer_is_expansion", "output_stride"),
        more=mobilenet_v2,
        processor={**INCEPTION, **BILINEAR, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
        any_size=True,
    ),
}
# fmt: on


def _flat_index(match: re.Match, depths: Sequence[int], first: int = 0) -> str:
    """Convert a block's index in the model to its stage and its index there."""
    stage, index = first, int(match[1])
    while stage < len(depths) - 1 and index >= depths[stage]:
        index, stage = index - depths[stage], stage + 1
    return f"blocks.{stage}.{index}."


def _finish(tensors: dict[str, Any]) -> dict[str, Any]:
    """Blocks without expansion have one layer less, so their layers have other numbers."""
    expanding = {name.rpartition(".conv_pw.")[0] for name in tensors if ".conv_pw." in name}
    rules = ((r"\.bn2\.", ".bn1."), (r"\.bn3\.", ".bn2."), (r"\.conv_pwl\.", ".conv_pw."))

    def renamed(name: str) -> str:
        block = re.match(r"blocks\.\d+\.\d+", name)
        return name if block is None or block[0] in expanding else rename(name, rules) or name

    return {renamed(name): value for name, value in tensors.items()}


_EFFICIENTNET_RULES = (
    (r"^embeddings\.convolution\.", "conv_stem."),
    (r"^embeddings\.batchnorm\.", "bn1."),
    (r"^encoder\.top_conv\.", "conv_head."),
    (r"^encoder\.top_bn\.", "bn2."),
    (r"\.expansion\.expand_conv\.", ".conv_pw."),
    (r"\.expansion\.expand_bn\.", ".bn1."),
    (r"\.depthwise_conv\.depthwise_conv\.", ".conv_dw."),
    (r"\.depthwise_conv\.depthwise_norm\.", ".bn2."),
    (r"\.squeeze_excite\.(reduce|expand)\.", r".se.conv_\1."),
    (r"\.projection\.project_conv\.", ".conv_pwl."),
    (r"\.projection\.project_bn\.", ".bn3."),
)
_MOBILENET_RULES = (
    *NORMED,
    (r"^conv_stem\.(?!first_conv)", "blocks.0.0."),
    (r"^conv_stem\.first_conv\.conv\.", "conv_stem."),
    (r"^conv_stem\.first_conv\.bn\.", "bn1."),
    (r"^conv_1x1\.conv\.", "conv_head."),
    (r"^conv_1x1\.bn\.", "bn2."),
    (r"^layer\.(\d+)\.", partial(_flat_index, depths=_MOBILENET_V2_DEPTHS, first=1)),
    (r"\.expand_1x1\.conv\.", ".conv_pw."),
    (r"\.expand_1x1\.bn\.", ".bn1."),
    (r"\.conv_3x3\.conv\.", ".conv_dw."),
    (r"\.conv_3x3\.bn\.", ".bn2."),
    (r"\.reduce_1x1\.conv\.", ".conv_pwl."),
    (r"\.reduce_1x1\.bn\.", ".bn3."),
)


def _names(info: CheckpointInfo) -> tuple[OlderNames, ...]:
    """EfficientNet numbers its blocks across stages."""
    options = options_from(info.overrides, info.family)
    stages = options.get("stages") or dict(registry.create(info.architecture).config)["stages"]
    depths = [sum(stack.depth for stack in stage) for stage in stages]
    numbers = (r"^encoder\.blocks\.(\d+)\.", partial(_flat_index, depths=depths))
    return (
        OlderNames(r"^conv_stem\.first_conv\.", _MOBILENET_RULES, _finish),
        OlderNames(r"^embeddings\.", (numbers, *_EFFICIENTNET_RULES), _finish),
    )


NAMES = {"efficientnet": _names}
