"""Checkpoints of Vision Transformers: older forms of their names, and timm's constructor arguments."""

import re
from typing import Any

from flaim.family import OlderNames, Timm, add_zero_bias

_add_head_bias = add_zero_bias("head")  # CLIP's projection has none


def _finish_openai_clip(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["cls_token"] = tensors["cls_token"][None, None]
    tensors["pos_embed"] = tensors["pos_embed"][None]
    if "head.weight" in tensors:
        tensors["head.weight"] = tensors["head.weight"].T
    return _add_head_bias(tensors)


def _finish_mobileclip(tensors: dict[str, Any]) -> dict[str, Any]:
    tensors["pos_embed"] = tensors["pos_embed"][0]
    if "head.weight" in tensors:
        tensors["head.weight"] = tensors["head.weight"].T
    return _add_head_bias(tensors)


def _finish_dinov2(tensors: dict[str, Any]) -> dict[str, Any]:
    """With registers, timm adds the class token's position embedding to the token itself."""
    if "reg_token" in tensors:
        position = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    return tensors


OLDER_NAMES = (
    OlderNames(  # OpenAI's CLIP, and OpenCLIP's own tower
        r"^visual\.class_embedding$",
        (
            (r"^(?!visual\.)", None),
            (r"^visual\.", ""),
            (r"^conv1\.", "patch_embed.proj."),
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.in_proj_", ".qkv."),
            (r"\.out_proj\.", ".proj."),
            (r"\.c_fc\.", ".fc1."),
            (r"\.c_proj\.", ".fc2."),
            (r"^proj$", "head.weight"),
        ),
        _finish_openai_clip,
    ),
    OlderNames(  # OpenCLIP around timm's tower
        r"^visual\.trunk\.",
        (
            (r"^(?!visual\.)", None),
            (r"^visual\.trunk\.", ""),
            (r"^visual\.head\.proj\.", "head."),
        ),
        _add_head_bias,
    ),
    OlderNames(  # DINOv2
        r"^mask_token$",
        (
            (r"^mask_token$", None),
            (r"^register_tokens$", "reg_token"),
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        _finish_dinov2,
    ),
    OlderNames(r"\.gamma_1$", ((r"\.gamma_(\d)$", r".ls\1.gamma"),)),  # DeiT III
    OlderNames(  # MobileCLIP
        r"^image_encoder\.model\.patch_emb\.",
        (
            (r"^(?!image_encoder\.model\.)", None),
            (r"^image_encoder\.model\.", ""),
            (r"^patch_emb\.(\d+)\.block\.conv\.", r"patch_embed.backbone.\1.conv."),
            (r"^patch_emb\.(\d+)\.block\.norm\.", r"patch_embed.backbone.\1.bn."),
            (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
            (r"^post_transformer_norm\.", "norm."),
            (r"^transformer\.", "blocks."),
            (r"\.pre_norm_mha\.0\.", ".norm1."),
            (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.qkv."),
            (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.proj."),
            (r"\.pre_norm_ffn\.0\.", ".norm2."),
            (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
            (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
            (r"^classifier\.proj$", "head.weight"),
        ),
        _finish_mobileclip,
    ),
    OlderNames(r"^pre_logits\.", ((r"^pre_logits\.", None),)),  # a representation layer that timm has given up
)


def _unused(architecture: str, name: str) -> bool:
    """SigLIP towers that average their tokens come with the attention pooling that they were trained with.

    A model may also be wanted without the pooler that its checkpoint has.
    """
    return name.startswith("pooler.") or ("siglip" in architecture and name.startswith("attn_pool."))


def _interpolation(architecture: str) -> str:
    """How timm resamples the position embeddings; see `resample_position_embedding`."""
    if re.search(r"(base|huge)_patch16_radio_v3", architecture):
        return "bilinear_aligned"
    return "bilinear" if "flexi" in architecture or "radio" in architecture else "bicubic"


TIMM = Timm(
    ("vision_transformer", "vision_transformer_hybrid", "deit"),
    {
        "class_token": ("class_token", None),
        "depth": ("depth", None),
        "embed_dim": ("dim", None),
        "fc_norm": ("fc_norm", None),
        "final_norm": ("final_norm", None),
        "global_pool": (
            "pool",
            {
                "avg": {"function": "average_pool"},
                "map": {"function": "map_pool"},
                "token": {"function": "class_token_pool"},
            },
        ),
        "init_values": ("layer_scale_init", None),
        "mlp_ratio": ("mlp_ratio", None),
        "no_embed_class": ("embed_prefix", {True: False, False: True}),
        "num_heads": ("num_heads", None),
        "patch_size": ("patch_size", None),
        "pool_include_prefix": ("pool_prefix", None),
        "pre_norm": ("pre_norm", None),
        "proj_bias": ("proj_bias", None),
        "qkv_bias": ("qkv_bias", None),
        "reg_tokens": ("num_registers", None),
    },
    fixed_input_size=True,
    unused=_unused,
    interpolation=_interpolation,
)
