"""Swin Transformer and Swin Transformer V2."""

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BICUBIC, IMAGENET, HFConfig, Json, ModelType
from flaim.weights.converters.transformers._names import QKV, join, join_keyless
from flaim.weights.info import size_of


def swinv2(c: HFConfig) -> Json:
    """Swin V2. transformers fits a stage's windows to its height, which it rounds down; flaim to each axis as it is."""
    patch, window, depths = size_of(c["patch_size"]), c["window_size"], c["depths"]
    sides = size_of(c["image_size"])
    fits = not any(side % part for side, part in zip(sides, patch))
    for i in range(len(depths)):
        height, width = (-(-side // (part * 2**i)) for side, part in zip(sides, patch))
        rounded = sides[0] // patch[0] // 2**i
        one_window = height == width == min(rounded, window)
        fits = fits and (one_window or min(rounded, width) > window)
    c.require("image_size", fits)
    return {"pretrained_windows": c["pretrained_window_sizes"][: len(depths)]}


# fmt: off
_SWIN = {
    "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7, "mlp_ratio": 4.0,
    "qkv_bias": True, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "drop_path_rate": 0.1,
    "use_absolute_embeddings": False, "image_size": 224, "patch_size": 4,
}
_SAME = {
    "dim": "embed_dim",
    "window": "window_size",
    **{name: name for name in ("depths", "num_heads", "patch_size", "mlp_ratio", "qkv_bias", "drop_path_rate")},
}
_FIXED = ("hidden_act", "layer_norm_eps", "use_absolute_embeddings")
MODEL_TYPES = {
    "swin": ModelType(
        "swin",
        r"^swin_(tiny|small|base|large)_patch4_",
        _SWIN,
        same=_SAME,
        fixed=_FIXED,
        processor={**IMAGENET, **BICUBIC, "square": True},
    ),
    "swinv2": ModelType(
        "swinv2",
        r"^swinv2_(tiny|small|base|large)_window\d+",
        {**_SWIN, "pretrained_window_sizes": (0, 0, 0, 0)},
        same=_SAME,
        fixed=_FIXED,
        more=swinv2,
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

_SWINV2_NAMES = _SWIN_NAMES._replace(
    rules=(
        (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
        (r"\.attention\.self\.logit_scale$", ".attn.logit_scale"),
        *_SWIN_NAMES.rules,
    ),
    finish=join_keyless,
)

NAMES = {"swin": lambda info: (_SWIN_NAMES,), "swinv2": lambda info: (_SWINV2_NAMES,)}
