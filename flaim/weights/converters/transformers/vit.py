"""Vision Transformers: ViT, DeiT, DINOv2, and the vision towers of CLIP and SigLIP."""

from dataclasses import replace
from typing import Any

import numpy as np

from flaim.family import OlderNames
from flaim.options import ratio_of
from flaim.weights.converters.transformers._model_type import (
    BICUBIC,
    BILINEAR,
    CLIP_STATS,
    IMAGENET,
    INCEPTION,
    HFConfig,
    Json,
    ModelType,
    act,
    function,
    norm,
)
from flaim.weights.converters.transformers._names import QKV, join
from flaim.weights.info import size_of


def transformer(c: HFConfig) -> Json:
    """What all Vision Transformers have in common."""
    dim, sides, patch = c["hidden_size"], size_of(c["image_size"]), size_of(c["patch_size"])
    c.require("head_dim", c["head_dim"] in (None, dim // c["num_attention_heads"]))
    return {
        "mlp_ratio": ratio_of(c["intermediate_size"], dim),
        "norm": norm("layer_norm", c["layer_norm_eps"]),
        "act": act(c),
        "drop_remainder": any(side % part for side, part in zip(sides, patch)),
    }


def vit(c: HFConfig) -> Json:
    """ViT and DeiT, with their pooler and distillation token."""
    options = transformer(c)
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
        gated = {"block": function("encoder_block", mlp=function("packed_glu"))}
    pool = {"pool": function("class_and_average_pool")} if "classifier.weight" in c.tensors else {}
    return transformer(c) | gated | pool | {"embed_prefix": not c["num_register_tokens"]}


def clip(c: HFConfig) -> Json:
    """The vision tower of CLIP."""
    head = {"pool": function("average_pool"), "final_norm": False} if "classifier.weight" in c.tensors else {}
    return transformer(c) | {"pre_norm": True} | head


def siglip(c: HFConfig) -> Json:
    """The vision tower of SigLIP."""
    pool: Json = {"pool": function("average_pool"), "fc_norm": False}
    if c["vision_use_head"] and "classifier.weight" not in c.tensors:
        pool = {"pool": function("map_pool")}
    return transformer(c) | {"class_token": False} | pool


# fmt: off
TRANSFORMER = {
    "dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
    "patch_size": "patch_size", "drop_path_rate": "drop_path_rate",
}
BASE: Json = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "head_dim": None, "hidden_act": "gelu", "drop_path_rate": 0.0, "image_size": 224, "patch_size": 16,
}
_VIT = ModelType(
    "vit",
    r"^vit_(tiny|small|base|large|huge)_patch\d+_\d+$",
    {**BASE, "layer_norm_eps": 1e-12, "qkv_bias": True, "pooler_act": "tanh"},
    same={**TRANSFORMER, "qkv_bias": "qkv_bias"},
    more=vit,
    processor={**INCEPTION, **BILINEAR, "square": True},
)
_DINOV2 = ModelType(
    "vit",
    r"^vit_(small|base|large|giant)_patch14_dinov2$",
    {
        **BASE, "patch_size": 14, "mlp_ratio": 4, "layer_norm_eps": 1e-6, "qkv_bias": True, "layerscale_value": 1.0,
        "use_swiglu_ffn": False, "num_register_tokens": 0,
    },
    same={
        **TRANSFORMER, "qkv_bias": "qkv_bias", "layer_scale_init": "layerscale_value",
        "num_registers": "num_register_tokens",
    },
    more=dinov2,
    processor={**IMAGENET, **BICUBIC, "size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
)
_CLIP = ModelType(
    "vit",
    r"^vit_\w+_clip_(quickgelu_)?\d+$",
    {**BASE, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    same=TRANSFORMER,
    more=clip,
    processor={**CLIP_STATS, **BICUBIC, "size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True},
)
_SIGLIP = ModelType(
    "vit",
    r"^vit_\w+_siglip_(gap_)?\d+$",
    {**BASE, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "vision_use_head": True},
    same=TRANSFORMER,
    more=siglip,
    processor={**INCEPTION, **BICUBIC, "square": True},
)
MODEL_TYPES = {
    "vit": _VIT,
    "deit": replace(
        _VIT,
        variants=r"^deit_(tiny|small|base)_(distilled_)?patch16_\d+$",
        processor={**IMAGENET, **BICUBIC, "square": True, "size": 256, "crop_size": 224, "do_center_crop": True},
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
}
# fmt: on


def _finish_vit(tensors: dict[str, Any]) -> dict[str, Any]:
    if "reg_token" in tensors and tensors["reg_token"].shape[1] and "dist_token" not in tensors:
        # Registers have no positions here, so add the class token's position to the token.
        position = np.asarray(tensors["pos_embed"])
        tensors["cls_token"] = np.asarray(tensors["cls_token"]) + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    if "dist_token" in tensors and "head_dist.weight" not in tensors:
        tensors["reg_token"] = tensors.pop("dist_token")
    return join(tensors)


def _finish_clip(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["pos_embed"] = np.asarray(tensors["pos_embed"])[None]
    classifier = tensors.pop("classifier.weight", None)
    if classifier is not None:  # its input is the mean of the tokens, not CLIP's or SigLIP's pooling
        unused = "attn_pool." if "cls_token" not in tensors else "norm."
        tensors = {name: value for name, value in tensors.items() if not name.startswith(unused)}
        tensors |= {"head.weight": classifier, "head.bias": tensors.pop("classifier.bias")}
    elif "head.weight" in tensors:  # CLIP's projection has no bias
        weight = tensors["head.weight"]
        tensors["head.bias"] = np.zeros(weight.shape[0], weight.dtype)
    for name in ("weight", "bias"):
        if (packed := tensors.pop(f"attn_pool.in_proj_{name}", None)) is not None:
            packed = np.asarray(packed)
            dim = packed.shape[0] // 3
            tensors |= {f"attn_pool.q.{name}": packed[:dim], f"attn_pool.kv.{name}": packed[dim:]}
    return join(tensors)


_VIT_NAMES = OlderNames(
    r"^embeddings\.patch_embeddings\.projection\.",
    (
        (r"^embeddings\.mask_token$|^decoder\.", None),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
        *QKV,
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"\.mlp\.weights_in\.", ".mlp.fc1."),
        (r"\.mlp\.(?:weights_out|down_proj)\.", ".mlp.fc2."),
        (r"^layernorm\.", "norm."),
        (r"^pooler\.dense\.", "pooler."),
        (r"^(?:cls_)?classifier\.", "head."),
        (r"^distillation_classifier\.", "head_dist."),
    ),
    _finish_vit,
)
_CLIP_NAMES = OlderNames(
    r"^embeddings\.patch_embedding\.",
    (
        (r"^(text_model|text_projection)\.|^logit_(scale|bias)$|\.position_ids$", None),
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
        *QKV,
        (r"^pre_layrnorm\.", "norm_pre."),
        (r"^post_layernorm\.", "norm."),
        (r"^head\.probe$", "attn_pool.latent"),
        (r"^head\.attention\.in_proj_", "attn_pool.in_proj_"),
        (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
        (r"^head\.layernorm\.", "attn_pool.norm."),
        (r"^head\.mlp\.", "attn_pool.mlp."),
        (r"^visual_projection\.", "head."),
    ),
    _finish_clip,
)

NAMES = {"vit": lambda info: (_CLIP_NAMES, _VIT_NAMES)}
