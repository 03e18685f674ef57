"""Swin Transformer."""

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BICUBIC, IMAGENET, ModelType
from flaim.weights.converters.transformers._names import QKV, join

# fmt: off
MODEL_TYPES = {
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
        processor={**IMAGENET, **BICUBIC, "square": True},
    ),
}
# fmt: on

_SWIN_NAMES = OlderNames(
    r"^encoder\.layers\.0\.",
    (
        (r"^embeddings\.mask_token$|^decoder\.", None),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^encoder\.", ""),
        (r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),
        (r"\.attention\.(?:self|relative_position_bias)\.relative_position", ".attn.relative_position"),
        *QKV,
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head.fc."),
    ),
    join,
)

NAMES = {"swin": lambda info: (_SWIN_NAMES,)}
