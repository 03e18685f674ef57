"""DINOv3's Vision Transformers; its ConvNeXts are among the others."""

import re
from typing import Any

from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import BILINEAR, IMAGENET, HFConfig, Json, ModelType, function
from flaim.weights.converters.transformers._names import QKV, join_keyless
from flaim.weights.converters.transformers.vit import BASE, TRANSFORMER, transformer


def dinov3(c: HFConfig) -> Json:
    """DINOv3: rotated queries and keys, gated MLPs or plain ones."""
    options = transformer(c)
    c.require("image_size", not options.pop("drop_remainder"))
    c.require("query_bias", c["query_bias"] == c["value_bias"])
    c.require("key_bias", c["query_bias"] or not c["key_bias"])
    kind, usual = ("glu", "silu") if c["use_gated_mlp"] else ("mlp", "gelu")
    arguments: Json = {} if c["mlp_bias"] else {"bias": False}
    if (act := options.pop("act")) != function(usual):
        arguments["act"] = act
    project = {"project": function("merged_projection")} if c["key_bias"] else {}
    theta = c["rope_theta"]
    return options | {
        "mlp": function(kind, **arguments),
        "attn": function("rotary_attention", interleaved=False, **project),
        "rope": function("centred_angles", **({} if theta == 100 else {"temperature": theta})),
        "absolute_positions": False,
        "pool": function("class_token_pool"),
        "fc_norm": False,
    }


# fmt: off
MODEL_TYPES = {
    "dinov3_vit": ModelType(
        "eva",
        r"^vit_\w+_patch16_dinov3(_qkvb)?$",
        {
            **BASE, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "layer_norm_eps": 1e-5,
            "rope_theta": 100.0, "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True,
            "mlp_bias": True, "layerscale_value": 1.0, "use_gated_mlp": False, "num_register_tokens": 0,
        },
        same={
            **TRANSFORMER, "qkv_bias": "query_bias", "layer_scale_init": "layerscale_value",
            "num_registers": "num_register_tokens",
        },
        fixed=("proj_bias",),
        more=dinov3,
        processor={**IMAGENET, **BILINEAR, "square": True},
        any_size=True,
    ),
}
# fmt: on


def _finish(tensors: dict[str, Any]) -> dict[str, Any]:
    if "reg_token" in tensors and not tensors["reg_token"].shape[1]:  # transformers keeps an empty one
        del tensors["reg_token"]
    if not any(".mlp.fc1_g." in name for name in tensors):
        tensors = {re.sub(r"\.mlp\.fc1_x\.", ".mlp.fc1.", name): value for name, value in tensors.items()}
    return join_keyless(tensors)


_DINOV3_NAMES = OlderNames(
    r"^embeddings\.patch_embeddings\.",
    (
        (r"^embeddings\.mask_token$", None),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
        (r"^(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),
        *QKV,
        (r"\.layer_scale(\d)\.lambda1$", r".gamma_\1"),
        (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
        (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
        (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    ),
    _finish,
)

NAMES = {"eva": lambda info: (_DINOV3_NAMES,)}
