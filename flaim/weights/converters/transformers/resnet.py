"""ResNet."""

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import (
    BICUBIC,
    IMAGENET,
    HFConfig,
    Json,
    ModelType,
    function,
)
from flaim.weights.converters.transformers._names import NORMED


def resnet(c: HFConfig) -> Json:
    """ResNet."""
    widths, bottleneck = c["hidden_sizes"], c["layer_type"] == "bottleneck"
    c.require("layer_type", c["layer_type"] in ("basic", "bottleneck"))
    c.require("hidden_sizes", not bottleneck or not any(width % 4 for width in widths))
    return {
        "branch": function(c["layer_type"]),
        "widths": [width // 4 for width in widths] if bottleneck else widths,
        "first_stride": 2 if c["downsample_in_first_stage"] else 1,
        "stride_first": bottleneck and c["downsample_in_bottleneck"],
    }


PROCESSOR = {**IMAGENET, **BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}}

# fmt: off
MODEL_TYPES = {
    "resnet": ModelType(
        "resnet",
        r"^resnet\d+$",
        {
            "embedding_size": 64, "hidden_sizes": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3),
            "layer_type": "bottleneck", "downsample_in_first_stage": False, "downsample_in_bottleneck": False,
            "hidden_act": "relu", "image_size": 224,
        },
        same={"depths": "depths", "stem_width": "embedding_size"},
        fixed=("hidden_act",),
        more=resnet,
        processor=PROCESSOR,
        any_size=True,
    ),
}
# fmt: on

_RESNET_NAMES = OlderNames(
    r"^embedder\.embedder\.",
    (
        *NORMED,
        (r"^embedder\.embedder\.(conv|bn)\.", r"\g<1>1."),
        (r"^encoder\.stages\.(\d+)\.layers\.", lambda match: f"layer{int(match[1]) + 1}."),
        (r"\.layer\.(?:layer_)?(\d)\.(conv|bn)\.", lambda match: f".{match[2]}{int(match[1]) + 1}."),
        (r"\.shortcut\.conv\.", ".downsample.0."),
        (r"\.shortcut\.bn\.", ".downsample.1."),
        (r"^classifier\.1\.", "fc."),
    ),
)

NAMES = {"resnet": lambda info: (_RESNET_NAMES,)}
