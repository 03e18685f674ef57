"""Swin Transformer and Swin Transformer V2."""

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BICUBIC, IMAGENET, HFConfig, Json, ModelType
from flaim.weights.converters.transformers._names import QKV, join, join_keyless
from flaim.weights.info import size_of


def swin(c: HFConfig) -> Json:
    """Swin: only the sizes of images where transformers' windows are flaim's."""
    c.require("image_size", _windows_agree(c, rounds=False))
    return {}


def swinv2(c: HFConfig) -> Json:
    """Swin V2: as Swin, and the windows of its pretraining.

    transformers adds the mask of shifted windows twice, the authors once: with the largest `logit_scale`, outputs can
    differ by 1e-4 of their size.
    """
    c.require("image_size", _windows_agree(c, rounds=True))
    return {"pretrained_windows": c["pretrained_window_sizes"][: len(c["depths"])]}


def _windows_agree(c: HFConfig, rounds: bool) -> bool:
    """Whether each stage has the same windows in both libraries.

    flaim, as timm, shrinks windows to the map along each axis, and shifts the map before it pads it. transformers has
    square windows, which it shrinks to the shorter side, in V2 (`rounds`) to the height, if halves were rounded down;
    it shifts along both axes or none, after the padding.
    """
    sides, patch, window = size_of(c["image_size"]), size_of(c["patch_size"]), c["window_size"]
    agree = not any(side % part for side, part in zip(sides, patch))
    for i, depth in enumerate(c["depths"]):
        height, width = (-(-side // (part * 2**i)) for side, part in zip(sides, patch))
        limit = sides[0] // (patch[0] * 2**i) if rounds else height
        one = height == width == min(limit, window)
        padded = height % window or width % window
        several = min(limit, width) > window and not (padded and depth > 1)
        agree = agree and (one or several)
    return agree


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
        more=swin,
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
