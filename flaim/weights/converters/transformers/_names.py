"""Tensors' names: what all models of transformers share.

Rules are for the names of its PyTorch models. Its Flax models, which version 5 dropped, have the same modules; `plain`
converts the names and layouts of their arrays.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaim.weights.converters._converter import Tensors
from flaim.weights.formats import LazyArray

_PREFIX = re.compile(
    r"^(vit|deit|beit|data2vec_vision|dinov2|dinov2_with_registers|swin|swinv2|pvt_v2|convnext|convnextv2|resnet|regnet"
    r"|efficientnet|mobilenet_v2|vision_model)\."
)
# Rules for attention, its MLP and its norms, by whichever names a model has them.
QKV = (
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
# Rules for a convolution followed by a norm.
NORMED = ((r"\.convolution\.", ".conv."), (r"\.normalization\.", ".bn."))

_JOINED = {
    "attn.qkv": ("attn.q", "attn.k", "attn.v"),
    "mlp.fc1": ("mlp.gate_proj", "mlp.up_proj"),
}


def join(tensors: dict[str, Any], wholes: Mapping[str, Sequence[str]] = _JOINED) -> dict[str, Any]:
    """Concatenate layers that are separate in transformers and one layer in flaim."""
    joined = {}
    for whole, (first, *others) in wholes.items():
        for name in [name for name in tensors if re.search(rf"\.{re.escape(first)}\.\w+$", name)]:
            parts = [name, *(name.replace(first, other) for other in others)]
            if all(part in tensors for part in parts) and len({tensors[part].shape[1:] for part in parts}) == 1:
                joined[name.replace(first, whole)] = _concatenated([tensors.pop(part) for part in parts])
    return tensors | joined


def join_keyless(tensors: dict[str, Any]) -> dict[str, Any]:
    """`join`; where keys have no bias, those of queries and values are leaves of their own."""
    return {re.sub(r"\.attn\.([qv])\.bias$", r".attn.\1_bias", name): value for name, value in join(tensors).items()}


def _concatenated(parts: Sequence[Any]) -> LazyArray:
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return LazyArray(shape, np.dtype(parts[0].dtype), lambda: np.concatenate([np.asarray(part) for part in parts]))


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
