"""Checkpoints of EVA and its descendants: older forms of their names, and timm's constructor arguments."""

from typing import Any

from flaim.family import OlderNames, Timm, add_zero_bias

_add_head_bias = add_zero_bias("head")  # a Perception Encoder's projection has none


def _finish_perception_encoder(tensors: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in tensors.items():
        if name == "cls_token":
            value = value[None, None]
        elif name == "pos_embed":
            value = value[None]
        elif name == "head.weight":
            value = value.T
        elif name.startswith("attn_pool.qkv."):
            leaf, width = name.removeprefix("attn_pool.qkv."), value.shape[0] // 3
            found[f"attn_pool.q.{leaf}"] = value[:width]
            name, value = f"attn_pool.kv.{leaf}", value[width:]
        found[name] = value
    return _add_head_bias(found)


def _finish_eva(tensors: dict[str, Any]) -> dict[str, Any]:
    """Biases beside the layers `q_proj` and `v_proj` belong to them."""
    if "blocks.0.attn.q_proj.weight" not in tensors:
        return tensors
    renamed = {"q_bias": "q_proj.bias", "v_bias": "v_proj.bias"}
    return {
        f"{parent}.{renamed[leaf]}" if leaf in renamed else f"{parent}{dot}{leaf}": value
        for (parent, dot, leaf), value in ((name.rpartition("."), value) for name, value in tensors.items())
    }


def _finish_dinov3(tensors: dict[str, Any]) -> dict[str, Any]:
    """The bias of queries, keys and values in parts; the keys' is 0."""
    found = {}
    for name, value in tensors.items():
        if name.endswith(".qkv.bias"):
            parent, width = name.removesuffix("qkv.bias"), value.shape[0] // 3
            found[f"{parent}q_bias"], found[f"{parent}v_bias"] = value[:width], value[2 * width :]
        else:
            found[name] = value
    return found


# The names of the paper's own code for layers of the MLP, and of norms within the branches.
_EVA_RULES = (
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_FIXED_ROTATION = r"^(?!rope\.freqs$).*rope"

OLDER_NAMES = (
    OlderNames(  # Perception Encoder with its text tower
        r"^visual\.conv1\.weight$", ((r"^(?!visual\.)", None), (r"^visual\.", ""))
    ),
    OlderNames(  # Perception Encoder
        r"^conv1\.weight$",
        (
            (r"^conv1\.", "patch_embed.proj."),
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.ls_(\d)\.gamma$", r".gamma_\1"),
            (r"^attn_pool\.attn\.", "attn_pool."),
            (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
            (r"^attn_pool\.probe$", "attn_pool.latent"),
            (r"\.in_proj_", ".qkv."),
            (r"\.out_proj\.", ".proj."),
            (r"\.c_fc\.", ".fc1."),
            (r"\.c_proj\.", ".fc2."),
            (r"^proj$", "head.weight"),
        ),
        _finish_perception_encoder,
    ),
    OlderNames(  # OpenCLIP around timm's tower
        r"^visual\.trunk\.", ((r"^(?!visual\.trunk\.)", None), (r"^visual\.trunk\.", ""))
    ),
    OlderNames(  # EVA-CLIP
        r"^visual\.patch_embed\.", ((r"^(?!visual\.)", None), (r"^visual\.", ""))
    ),
    OlderNames(_FIXED_ROTATION, ((_FIXED_ROTATION, None),)),
    OlderNames(  # Sapiens2
        r"^blocks\.0\.attn\.wq\.",
        (
            (r"^mask_token$", None),
            (r"^storage_tokens$", "reg_token"),
            (r"^patch_embed\.projection\.", "patch_embed.proj."),
            (r"\.attn\.w([qkv])\.", r".attn.\1_proj."),
            (r"\.attn\.gamma\.weight$", ".gamma_1"),
            (r"\.ffn\.", ".mlp."),
            (r"\.ln(\d)\.", r".norm\1."),
            (r"^ln1\.", "norm."),
        ),
    ),
    OlderNames(  # DINOv3
        r"^storage_tokens$",
        (
            (r"(^mask_token|\.bias_mask)$|^projectors\.|^local_cls_norm\.", None),
            (r"\.ls(\d)\.gamma$", r".gamma_\1"),
            (r"^storage_tokens$", "reg_token"),
        ),
        _finish_dinov3,
    ),
    OlderNames(  # EVA and EVA-02 after pretraining: the last norm is the one after the pooling
        r"^mask_token$", ((r"^(mask_token$|lm_head\.)", None), (r"^norm\.", "fc_norm."))
    ),
    OlderNames(r"\.(ffn_ln|inner_attn_ln|w12|w[123])\.|\.attn\.[qv]_bias$", _EVA_RULES, _finish_eva),
)


def _unused(architecture: str, name: str) -> bool:
    """DINOv3's files have biases of queries and values where they are 0, and the model has none."""
    return "dinov3" in architecture and name.endswith((".attn.q_bias", ".attn.v_bias"))


TIMM = Timm(
    ("eva",),
    {
        "class_token": ("class_token", None),
        "depth": ("depth", None),
        "embed_dim": ("dim", None),
        "global_pool": (
            "pool",
            {"avg": {"function": "average_pool"}, "token": {"function": "class_token_pool"}},
        ),
        "init_values": ("layer_scale_init", None),
        "mlp_ratio": ("mlp_ratio", None),
        "no_embed_class": ("embed_prefix", {True: False, False: True}),
        "num_heads": ("num_heads", None),
        "num_kv_heads": ("num_kv_heads", None),
        "num_reg_tokens": ("num_registers", None),
        "patch_size": ("patch_size", None),
        "qkv_bias": ("qkv_bias", None),
        "use_abs_pos_emb": ("absolute_positions", None),
        "use_fc_norm": ("fc_norm", None),
        "use_post_transformer_norm": ("final_norm", None),
    },
    fixed_input_size=True,
    unused=_unused,
)
