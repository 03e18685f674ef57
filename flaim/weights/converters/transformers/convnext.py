"""ConvNeXt V1 and V2, and DINOv3's."""

from dataclasses import replace

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import (
    BICUBIC,
    BILINEAR,
    IMAGENET,
    HFConfig,
    Json,
    ModelType,
    act,
    norm,
)


def convnext(c: HFConfig) -> Json:
    """ConvNeXt and ConvNeXt V2."""
    options: Json = {"act": act(c), "head_norm": norm("layer_norm", c["layer_norm_eps"])}
    if (scale := c.get("layer_scale_init_value")) is not None:
        options["layer_scale_init"] = scale if scale > 0 else None
    return options


def dinov3_convnext(c: HFConfig) -> Json:
    """DINOv3's ConvNeXt: one epsilon for all norms; there is always a layer scale."""
    layer_norm = norm("layer_norm", c["layer_norm_eps"])
    return {"act": act(c), "norm": layer_norm, "layer_scale_init": c["layer_scale_init_value"]}


# fmt: off
_CONVNEXT_V2 = ModelType(
    "convnext",
    r"^convnextv2_[a-z]+$",
    {
        "hidden_sizes": (96, 192, 384, 768), "depths": (3, 3, 9, 3), "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "drop_path_rate": 0.0, "image_size": 224, "patch_size": 4,
    },
    same={"dims": "hidden_sizes", "depths": "depths", "drop_path_rate": "drop_path_rate"},
    fixed=("patch_size",),
    more=convnext,
    processor={**IMAGENET, **BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}},
    any_size=True,
)

MODEL_TYPES = {
    "convnext": replace(
        _CONVNEXT_V2,
        variants=r"^convnext_(tiny|small|base|large|xlarge)$",
        defaults={**_CONVNEXT_V2.defaults, "layer_scale_init_value": 1e-6},
    ),
    "convnextv2": _CONVNEXT_V2,
    "dinov3_convnext": replace(
        _CONVNEXT_V2,
        variants=r"^convnext_(tiny|small|base|large)$",
        defaults={**_CONVNEXT_V2.defaults, "layer_norm_eps": 1e-6, "layer_scale_init_value": 1e-6},
        fixed=(),
        more=dinov3_convnext,
        processor={**IMAGENET, **BILINEAR, "square": True, "size": 224},
    ),
}
# fmt: on

_CONVNEXT_NAMES = OlderNames(
    r"\.dwconv\.",
    (
        (r"^embeddings\.patch_embeddings\.", "stem.0."),
        (r"^embeddings\.layernorm\.", "stem.1."),
        (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
        (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
        (r"\.dwconv\.", ".conv_dw."),
        (r"\.pwconv(\d)\.", r".mlp.fc\1."),
        (r"\.grn\.", ".mlp.grn."),
        (r"\.layer_scale_parameter$", ".gamma"),
        (r"^layernorm\.", "head.norm."),
        (r"\.layernorm\.", ".norm."),
        (r"^classifier\.", "head.fc."),
    ),
)

_DINOV3_NAMES = OlderNames(
    r"^(model\.)?stages\.0\.downsample_layers\.",
    (
        (r"^model\.", ""),
        (r"^stages\.0\.downsample_layers\.", "stem."),
        (r"\.downsample_layers\.", ".downsample."),
        (r"\.layers\.", ".blocks."),
        (r"\.depthwise_conv\.", ".conv_dw."),
        (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
        (r"^layer_norm\.", "head.norm."),
        (r"\.layer_norm\.", ".norm."),
    ),
)

NAMES = {"convnext": lambda info: (_CONVNEXT_NAMES, _DINOV3_NAMES)}
