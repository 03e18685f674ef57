"""ConvNeXt V1 and V2."""

from dataclasses import replace

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import (
    BICUBIC,
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

NAMES = {"convnext": lambda info: (_CONVNEXT_NAMES,)}
