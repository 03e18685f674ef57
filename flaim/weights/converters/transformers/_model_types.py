"""A table of transformers' model types for images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flaim.weights.converters.transformers import _options
from flaim.weights.converters.transformers._options import HFConfig, Json
from flaim.weights.info import NORMALISATIONS, size_of


@dataclass(frozen=True)
class ModelType:
    """A model type of transformers (`model_type` in `config.json`), and how it maps to flaim's models.

    Attributes:
        family: flaim's family.
        variants: A pattern; the model is named after the nearest architecture whose name matches.
        defaults: transformers' options with their default values.
        same: For options of our model function, the option of transformers with the same value.
        fixed: transformers' options that our model function does not have: only the default value is accepted.
        more: The remaining options of our model function, from the configuration.
        processor: Default settings of the image processor. With `square`, a size of one number is that of both sides;
            otherwise it is that of the shorter side.
        any_size: The same variables work for images of any size.
    """

    family: str
    variants: str
    defaults: Json
    same: Mapping[str, str]
    fixed: Sequence[str] = ()
    more: Callable[[HFConfig], Json] = lambda c: {}
    processor: Json = field(default_factory=dict)
    any_size: bool = False


def options_of(
    model_type: ModelType, config: Mapping[str, Any], tensors: Mapping[str, Any]
) -> tuple[Json, tuple[int, int], list[str]]:
    """Options of our model function as JSON, the image size, and the options that flaim does not have."""
    c = HFConfig(
        {**model_type.defaults, **{option: value for option, value in config.items() if value is not None}}, tensors
    )
    for option in model_type.fixed:
        c.require(option, c[option] == model_type.defaults[option])
    c.require("pruned_heads", not c.setdefault("pruned_heads", {}))
    options = {option: c[theirs] for option, theirs in model_type.same.items()} | model_type.more(c)
    options = {option: list(value) if isinstance(value, tuple) else value for option, value in options.items()}
    return options, size_of(c["image_size"]), c.refused


# fmt: off
_TRANSFORMER = {
    "dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
    "patch_size": "patch_size", "drop_path_rate": "drop_path_rate",
}
_BASE: Json = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "head_dim": None, "hidden_act": "gelu", "drop_path_rate": 0.0, "image_size": 224, "patch_size": 16,
}
_INCEPTION, _CLIP_STATS, _IMAGENET = (
    dict(zip(("image_mean", "image_std"), NORMALISATIONS[name])) for name in ("inception", "clip", "imagenet")
)
_BILINEAR, _BICUBIC = {"resample": 2, "square": False}, {"resample": 3, "square": False}

_VIT = ModelType(
    "vit",
    r"^vit_(tiny|small|base|large|huge)_patch\d+_\d+$",
    {**_BASE, "layer_norm_eps": 1e-12, "qkv_bias": True, "pooler_act": "tanh"},
    same={**_TRANSFORMER, "qkv_bias": "qkv_bias"},
    more=_options.vit,
    processor={**_INCEPTION, **_BILINEAR, "square": True},
)
_DINOV2 = ModelType(
    "vit",
    r"^vit_(small|base|large|giant)_patch14_dinov2$",
    {
        **_BASE, "patch_size": 14, "mlp_ratio": 4, "layer_norm_eps": 1e-6, "qkv_bias": True, "layerscale_value": 1.0,
        "use_swiglu_ffn": False, "num_register_tokens": 0,
    },
    same={
        **_TRANSFORMER, "qkv_bias": "qkv_bias", "layer_scale_init": "layerscale_value",
        "num_registers": "num_register_tokens",
    },
    more=_options.dinov2,
    processor={**_IMAGENET, **_BICUBIC, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
)
_CLIP = ModelType(
    "vit",
    r"^vit_\w+_clip_(quickgelu_)?\d+$",
    {**_BASE, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    same=_TRANSFORMER,
    more=_options.clip,
    processor={**_CLIP_STATS, **_BICUBIC, "size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True},
)
_SIGLIP = ModelType(
    "vit",
    r"^vit_\w+_siglip_(gap_)?\d+$",
    {**_BASE, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True},
    same=_TRANSFORMER,
    more=_options.siglip,
    processor={**_INCEPTION, **_BICUBIC, "square": True},
)
_CONVNEXT_V2 = ModelType(
    "convnext",
    r"^convnextv2_[a-z]+$",
    {
        "hidden_sizes": (96, 192, 384, 768), "depths": (3, 3, 9, 3), "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "drop_path_rate": 0.0, "image_size": 224, "patch_size": 4,
    },
    same={"dims": "hidden_sizes", "depths": "depths", "drop_path_rate": "drop_path_rate"},
    fixed=("patch_size",),
    more=_options.convnext,
    processor={**_IMAGENET, **_BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}},
    any_size=True,
)

# By `model_type`.
MODEL_TYPES: dict[str, ModelType] = {
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
    "swin": ModelType(
        "swin",
        r"^swin_(tiny|small|base|large)_patch4_",
        {
            "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7, "mlp_ratio": 4.0,
            "qkv_bias": True, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "drop_path_rate": 0.1,
            "use_absolute_embeddings": False, "image_size": 224, "patch_size": 4,
        },
        same={
            "dim": "embed_dim",
            "window": "window_size",
            **{name: name for name in ("depths", "num_heads", "patch_size", "mlp_ratio", "qkv_bias", "drop_path_rate")},
        },
        fixed=("hidden_act", "layer_norm_eps", "use_absolute_embeddings"),
        processor={**_IMAGENET, **_BICUBIC, "square": True},
    ),
    "convnext": replace(
        _CONVNEXT_V2,
        variants=r"^convnext_(tiny|small|base|large|xlarge)$",
        defaults={**_CONVNEXT_V2.defaults, "layer_scale_init_value": 1e-6},
    ),
    "convnextv2": _CONVNEXT_V2,
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
        more=_options.resnet,
        processor={**_IMAGENET, **_BICUBIC, "crop_pct": 0.875, "size": {"shortest_edge": 224}},
        any_size=True,
    ),
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
        more=_options.efficientnet,
        processor={**_IMAGENET, **_BICUBIC, "square": True, "include_top": True},
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
        more=_options.mobilenet_v2,
        processor={**_INCEPTION, **_BILINEAR, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
        any_size=True,
    ),
}
# fmt: on
