"""Pyramid Vision Transformer V2."""

from functools import partial

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BICUBIC, IMAGENET, HFConfig, Json, ModelType, norm
from flaim.weights.converters.transformers._names import join


def pvt_v2(c: HFConfig) -> Json:
    """PVT v2; `linear_attention` pools the map of keys and values to 7x7."""
    if isinstance(c["image_size"], dict):  # of transformers 4
        c["image_size"] = (c["image_size"]["height"], c["image_size"]["width"])
    stages = len(c["depths"])
    c.require("num_encoder_blocks", c["num_encoder_blocks"] == stages)
    c.require("patch_sizes", list(c["patch_sizes"])[:stages] == [7, *[3] * (stages - 1)])
    c.require("strides", list(c["strides"])[:stages] == [4, *[2] * (stages - 1)])
    eps = norm("layer_norm", c["layer_norm_eps"])
    return {"pooled_size": 7 if c["linear_attention"] else None, "norm": eps, "embed_norm": eps}


# fmt: off
MODEL_TYPES = {
    "pvt_v2": ModelType(
        "pvt_v2",
        r"^pvt_v2_b\d(_li)?$",
        {
            "num_encoder_blocks": 4, "depths": (2, 2, 2, 2), "sr_ratios": (8, 4, 2, 1),
            "hidden_sizes": (32, 64, 160, 256), "patch_sizes": (7, 3, 3, 3), "strides": (4, 2, 2, 2),
            "num_attention_heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4), "hidden_act": "gelu",
            "layer_norm_eps": 1e-6, "qkv_bias": True, "linear_attention": False, "drop_path_rate": 0.0,
            "image_size": 224,
        },
        same={
            "dims": "hidden_sizes",
            "num_heads": "num_attention_heads",
            "reduction_ratios": "sr_ratios",
            **{name: name for name in ("depths", "mlp_ratios", "qkv_bias", "drop_path_rate")},
        },
        fixed=("hidden_act",),
        more=pvt_v2,
        processor={**IMAGENET, **BICUBIC, "square": True, "size": 224},
        any_size=True,
    ),
}
# fmt: on

_PVT_V2_NAMES = OlderNames(
    r"^encoder\.layers\.0\.patch_embedding\.",
    (
        (r"^encoder\.layers\.0\.patch_embedding\.", "patch_embed."),
        (r"^encoder\.layers\.(\d+)\.patch_embedding\.", r"stages.\1.downsample."),
        (r"^encoder\.layers\.", "stages."),
        (r"\.attention\.query\.", ".attn.q."),
        (r"\.attention\.(key|value)\.", r".attn.\1."),
        (r"\.attention\.spatial_reduction\.", ".attn.sr."),
        (r"\.attention\.", ".attn."),
        (r"\.layer_norm_(\d)\.", r".norm\1."),
        (r"\.layer_norm\.", ".norm."),
        (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
        (r"\.dwconv\.dwconv\.", ".dwconv."),
        (r"^classifier\.", "head."),
    ),
    partial(join, wholes={"attn.kv": ("attn.key", "attn.value")}),
)

NAMES = {"pvt_v2": lambda info: (_PVT_V2_NAMES,)}
