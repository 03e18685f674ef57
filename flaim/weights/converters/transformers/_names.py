"""Convert Hugging Face transformers' names of tensors to timm's.

The rules are for names of its PyTorch models. Its Flax models, which version 5 dropped, have the same modules; one
function converts the names and layouts of their arrays.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import flaim_core as core
from flaim import registry
from flaim.family import OlderNames, rename
from flaim.options import options_from
from flaim.weights.converters._converter import Tensors
from flaim.weights.converters.timm import by_path
from flaim.weights.formats import LazyArray
from flaim.weights.info import CheckpointInfo

# Number of blocks in each stage.
MOBILENET_V2_DEPTHS = (1, 2, 3, 4, 3, 3, 1)

_PREFIX = re.compile(
    r"^(vit|deit|dinov2|dinov2_with_registers|swin|convnext|convnextv2|resnet|efficientnet|mobilenet_v2|vision_model)\."
)
_QKV = (
    (r"\.attention\.(?:self|attention)\.(query|key|value)\.", r".attn.\1."),
    (r"\.(?:attention|self_attn)\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attn\.([qkv])(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
)
_NORMED = ((r"\.convolution\.", ".conv."), (r"\.normalization\.", ".bn."))


def _flat_index(match: re.Match, depths: Sequence[int], first: int = 0) -> str:
    """Convert a block's index in the model to its stage and its index there."""
    stage, index = first, int(match[1])
    while stage < len(depths) - 1 and index >= depths[stage]:
        index, stage = index - depths[stage], stage + 1
    return f"blocks.{stage}.{index}."


def _finish_vit(tensors: dict[str, Any]) -> dict[str, Any]:
    if "reg_token" in tensors and tensors["reg_token"].shape[1] and "dist_token" not in tensors:
        # Registers have no positions here, so add the class token's position to the token.
        position = np.asarray(tensors["pos_embed"])
        tensors["cls_token"] = np.asarray(tensors["cls_token"]) + position[:, :1]
        tensors["pos_embed"] = position[:, 1:]
    if "dist_token" in tensors and "head_dist.weight" not in tensors:
        tensors["reg_token"] = tensors.pop("dist_token")
    return _join(tensors)


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
    return _join(tensors)


_JOINED = {
    "attn.qkv": ("attn.q", "attn.k", "attn.v"),
    "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj"),
}


def _join(tensors: dict[str, Any]) -> dict[str, Any]:
    """Concatenate layers that are separate in transformers and one layer in flaim."""
    joined = {}
    for whole, (first, *others) in _JOINED.items():
        for name in [name for name in tensors if re.search(rf"\.{re.escape(first)}\.\w+$", name)]:
            parts = [name, *(name.replace(first, other) for other in others)]
            if all(part in tensors for part in parts) and len({tensors[part].shape[1:] for part in parts}) == 1:
                joined[name.replace(first, whole)] = _concatenated([tensors.pop(part) for part in parts])
    return tensors | joined


def _concatenated(parts: Sequence[Any]) -> LazyArray:
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return LazyArray(shape, np.dtype(parts[0].dtype), lambda: np.concatenate([np.asarray(part) for part in parts]))


def _finish_efficientnet(tensors: dict[str, Any]) -> dict[str, Any]:
    """Blocks without expansion have one layer less, so their layers have other numbers."""
    expanding = {name.rpartition(".conv_pw.")[0] for name in tensors if ".conv_pw." in name}
    rules = ((r"\.bn2\.", ".bn1."), (r"\.bn3\.", ".bn2."), (r"\.conv_pwl\.", ".conv_pw."))

    def renamed(name: str) -> str:
        block = re.match(r"blocks\.\d+\.\d+", name)
        return name if block is None or block[0] in expanding else rename(name, rules) or name

    return {renamed(name): value for name, value in tensors.items()}


_VIT_FORM = OlderNames(
    r"^embeddings\.patch_embeddings\.projection\.",
    (
        (r"^embeddings\.mask_token$|^decoder\.", None),
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.register_tokens$", "reg_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
        *_QKV,
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
_CLIP_FORM = OlderNames(
    r"^embeddings\.patch_embedding\.",
    (
        (r"^(text_model|text_projection)\.|^logit_(scale|bias)$|\.position_ids$", None),
        (r"^embeddings\.class_embedding$", "cls_token"),
        (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
        (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
        (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
        *_QKV,
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
_SWIN_FORM = OlderNames(
    r"^encoder\.layers\.0\.",
    (
        (r"^embeddings\.mask_token$|^decoder\.", None),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^embeddings\.norm\.", "patch_embed.norm."),
        (r"^encoder\.", ""),
        (r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),
        (r"\.attention\.(?:self|relative_position_bias)\.relative_position", ".attn.relative_position"),
        *_QKV,
        (r"^layernorm\.", "norm."),
        (r"^classifier\.", "head.fc."),
    ),
    _join,
)
_CONVNEXT_FORM = OlderNames(
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
_RESNET_FORM = OlderNames(
    r"^embedder\.embedder\.",
    (
        *_NORMED,
        (r"^embedder\.embedder\.(conv|bn)\.", r"\g<1>1."),
        (r"^encoder\.stages\.(\d+)\.layers\.", lambda match: f"layer{int(match[1]) + 1}."),
        (r"\.layer\.(?:layer_)?(\d)\.(conv|bn)\.", lambda match: f".{match[2]}{int(match[1]) + 1}."),
        (r"\.shortcut\.conv\.", ".downsample.0."),
        (r"\.shortcut\.bn\.", ".downsample.1."),
        (r"^classifier\.1\.", "fc."),
    ),
)
_EFFICIENTNET_RULES = (
    (r"^embeddings\.convolution\.", "conv_stem."),
    (r"^embeddings\.batchnorm\.", "bn1."),
    (r"^encoder\.top_conv\.", "conv_head."),
    (r"^encoder\.top_bn\.", "bn2."),
    (r"\.expansion\.expand_conv\.", ".conv_pw."),
    (r"\.expansion\.expand_bn\.", ".bn1."),
    (r"\.depthwise_conv\.depthwise_conv\.", ".conv_dw."),
    (r"\.depthwise_conv\.depthwise_norm\.", ".bn2."),
    (r"\.squeeze_excite\.(reduce|expand)\.", r".se.conv_\1."),
    (r"\.projection\.project_conv\.", ".conv_pwl."),
    (r"\.projection\.project_bn\.", ".bn3."),
)
_MOBILENET_RULES = (
    *_NORMED,
    (r"^conv_stem\.(?!first_conv)", "blocks.0.0."),
    (r"^conv_stem\.first_conv\.conv\.", "conv_stem."),
    (r"^conv_stem\.first_conv\.bn\.", "bn1."),
    (r"^conv_1x1\.conv\.", "conv_head."),
    (r"^conv_1x1\.bn\.", "bn2."),
    (r"^layer\.(\d+)\.", partial(_flat_index, depths=MOBILENET_V2_DEPTHS, first=1)),
    (r"\.expand_1x1\.conv\.", ".conv_pw."),
    (r"\.expand_1x1\.bn\.", ".bn1."),
    (r"\.conv_3x3\.conv\.", ".conv_dw."),
    (r"\.conv_3x3\.bn\.", ".bn2."),
    (r"\.reduce_1x1\.conv\.", ".conv_pwl."),
    (r"\.reduce_1x1\.bn\.", ".bn3."),
)


def _forms(info: CheckpointInfo) -> tuple[OlderNames, ...]:
    """The naming schemes of a family's checkpoints; EfficientNet numbers its blocks across stages."""
    if info.family != "efficientnet":
        return _FORMS[info.family]
    options = options_from(info.overrides, info.family)
    stages = options.get("stages") or dict(registry.create(info.architecture).config)["stages"]
    depths = [sum(stack.depth for stack in stage) for stage in stages]
    numbers = (r"^encoder\.blocks\.(\d+)\.", partial(_flat_index, depths=depths))
    return (
        OlderNames(r"^conv_stem\.first_conv\.", _MOBILENET_RULES, _finish_efficientnet),
        OlderNames(r"^embeddings\.", (numbers, *_EFFICIENTNET_RULES), _finish_efficientnet),
    )


_FORMS: dict[str, tuple[OlderNames, ...]] = {
    "vit": (_CLIP_FORM, _VIT_FORM),
    "swin": (_SWIN_FORM,),
    "convnext": (_CONVNEXT_FORM,),
    "resnet": (_RESNET_FORM,),
}


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by the paths of flaim's leaves, in PyTorch's layout."""
    return by_path(renamed(tensors, info), leaves)


def renamed(tensors: Tensors, info: CheckpointInfo) -> dict[str, Any]:
    """The tensors under timm's names, in PyTorch's layout."""
    tensors = plain(tensors)
    form = next((f for f in _forms(info) if any(re.search(f.marker, name) for name in tensors)), None)
    if form is None:
        return dict(tensors)
    renamed = ((rename(name, form.rules), value) for name, value in tensors.items())
    tensors = {name: value for name, value in renamed if name is not None}
    return form.finish(tensors) if form.finish else tensors


# Flax: modules have the same names; arrays have other names, and their axes another order.

_FLAX_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_FLAX_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


def plain(tensors: Tensors) -> dict[str, Any]:
    """The tensors with PyTorch's names and layouts, without the prefix for the base model."""
    torch = (_from_flax(name, value) if "/" in name else (name, value) for name, value in tensors.items())
    return {_PREFIX.sub("", name): value for name, value in torch}


def _from_flax(name: str, value: Any) -> tuple[str, Any]:
    *modules, leaf = re.sub(r"^(params|batch_stats)/", "", name).split("/")
    if leaf == "kernel" and len(value.shape) in _FLAX_AXES:
        value = value.transpose(_FLAX_AXES[len(value.shape)])
    return ".".join([*modules, _FLAX_NAMES.get(leaf, leaf)]), value
