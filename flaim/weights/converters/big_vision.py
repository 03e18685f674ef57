"""Vision Transformers of google-research/vision_transformer and big_vision: `.npz` files without a configuration.

The tensors' names and shapes give the widths, depth, patch size, heads, image size, pooling and classes, and a
hybrid's ResNet. The authors use the tanh approximation of GELU. flaim computes exact GELU, as timm does with the same
weights; `act=gelu_tanh` (`{"function": "gelu_tanh"}` in a configuration) selects the approximation.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import flaim_core as core
from flaim.family import Rule, rename
from flaim.options import nearest, ratio_of
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.errors import CheckpointError
from flaim.weights.formats import LazyArray
from flaim.weights.info import NORMALISATIONS, CheckpointInfo, Preprocessing

_MARKER = re.compile(r"(^|/)(Transformer/encoderblock|MixerBlock_|conv_root/)")

# Training state in a file, and the text tower of a two-tower model.
_UNUSED = re.compile(r"^(opt/(?!target/)|opt$|states?/|extra/|step$|params/(txt/|t$|b$))")
_PREFIX = re.compile(r"^(opt/target/|params/img/|params/)")

_STACK = "Transformer/encoderblock/"  # arrays of all blocks, stacked along the first axis

_BACKBONE = "patch_embed/backbone/"  # of hybrids: a ResNet, or its stem alone
_RULES: tuple[Rule, ...] = (
    (r"^conv_root/", f"{_BACKBONE}stem/conv/"),
    (r"^gn_root/", f"{_BACKBONE}stem/norm/"),
    (r"^block(\d+)/unit(\d+)/", lambda m: f"{_BACKBONE}stages/{int(m[1]) - 1}/blocks/{int(m[2]) - 1}/"),
    (r"/conv_proj/", "/downsample/conv/"),
    (r"/gn_proj/", "/downsample/norm/"),
    (r"/gn(\d)/", r"/norm\1/"),
    (r"^embedding/", "patch_embed/proj/"),
    (r"^cls$", "cls_token"),
    (r"^(?:Transformer/)?(?:posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^Transformer/encoder_norm/", "norm/"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks/\1/"),
    (r"^MAPHead_0/probe$", "attn_pool/latent"),
    (r"^MAPHead_0/LayerNorm_0/", "attn_pool/norm/"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_0/(?:out/|(?=query|key|value))", "attn_pool/proj/"),
    (r"^attn_pool/proj/(query|key|value)/", r"attn_pool/\1/"),
    (r"^MAPHead_0/", "attn_pool/"),
    (r"/LayerNorm_0/", "/norm1/"),
    (r"/LayerNorm_[12]/", "/norm2/"),
    (r"/MlpBlock_[03]/Dense_0/", "/mlp/fc1/"),
    (r"/MlpBlock_[03]/Dense_1/", "/mlp/fc2/"),
    (r"/MultiHeadDotProductAttention_[01]/out/", "/attn/proj/"),
    (r"/MultiHeadDotProductAttention_[01]/(query|key|value)/", r"/attn/\1/"),
    (r"^pre_logits/", "pooler/"),
)
_JOINED = (
    (r"^(blocks/\d+/attn)/query/", "qkv", ("query", "key", "value")),
    (r"^(attn_pool)/key/", "kv", ("key", "value")),
    (r"^(attn_pool)/query/", "q", ("query",)),
)


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether the tensors have the names of these projects' models."""
    return any(map(_MARKER.search, tensors))


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description from the names and shapes of the tensors at `where`.

    Raises:
        CheckpointError: The model is no Vision Transformer, or lacks tensors that give its configuration.
    """
    if any("MixerBlock_" in name for name in tensors):
        raise CheckpointError(f"{where} holds an MLP-Mixer; of these projects' models flaim has Vision Transformers")
    leaves = _renamed(tensors)
    needed = ("patch_embed/proj/kernel", "blocks/0/attn/query/kernel", "blocks/0/mlp/fc1/kernel")
    if missing := [name for name in needed if name not in leaves]:
        raise CheckpointError(f"{where} holds a Vision Transformer without {', '.join(missing)}")
    patches, query, hidden = (leaves[name].shape for name in needed)
    if len(patches) != 4 or len(query) != 3:
        raise CheckpointError(
            f"{where} holds a Vision Transformer whose patch embedding has shape {patches}, expected a convolution, "
            f"and whose queries have shape {query}, expected (width, heads, width of a head)"
        )
    *patch, channels, dim = patches
    embed, stride = _embed(leaves)
    if stride > 1:
        channels = next(value.shape[2] for name, value in leaves.items() if re.search(r"backbone/(stem/)?conv/k", name))
    side = [stride * n for n in patch]
    tokens = leaves["pos_embed"].shape[1] if "pos_embed" in leaves else (224 // side[0]) * (224 // side[1])
    class_token, grid = "cls_token" in leaves, math.isqrt(tokens)
    extra = tokens - grid**2
    if extra not in (0, int(class_token)):
        raise CheckpointError(
            f"{where} has {tokens} position embeddings, expected as many as a square image has patches"
        )
    pool = "class_token_pool" if class_token else "map_pool" if "attn_pool/latent" in leaves else "average_pool"
    options = {
        "dim": dim,
        "depth": 1 + max(int(name.split("/")[1]) for name in leaves if name.startswith("blocks/")),
        "num_heads": query[1],
        "embed": embed,
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "mlp_ratio": ratio_of(hidden[1], dim),
        "class_token": class_token,
        "embed_prefix": not class_token or extra == 1,
        "pool": {"function": pool},
        "fc_norm": None if class_token else False,
        "pooler": leaves["pooler/bias"].shape[0] if "pooler/bias" in leaves else None,
    }
    size = grid * side[0], grid * side[1]
    kind = r"r\d*_s" if stride > 1 else "patch"
    architecture, overrides = nearest("vit", rf"^vit_(tiny|small|base|large|huge|giant|so400m)_{kind}", options, size)
    mean, std = NORMALISATIONS["inception"]
    return CheckpointInfo(
        model=architecture,
        family="vit",
        architecture=architecture,
        overrides=overrides,
        n_classes=leaves["head/bias"].shape[0] if "head/bias" in leaves else -1,
        in_channels=channels,
        preprocessing=Preprocessing(input_size=size, mean=mean, std=std),
    )


def _embed(leaves: Tensors) -> tuple[dict[str, Any], int]:
    """The option `embed`, as JSON, and the stride in pixels of the map that is cut into patches."""
    names = [name.removeprefix(_BACKBONE) for name in leaves if name.startswith(_BACKBONE)]
    if not names:
        return {"function": "patch_embed"}, 1
    blocks = {tuple(map(int, name.split("/")[1:4:2])) for name in names if name.startswith("stages/")}
    depths = [
        sum(stage == i for stage, _ in blocks) for i in range(1 + max((stage for stage, _ in blocks), default=-1))
    ]
    backbone: dict[str, Any] = {"function": "standardised_resnet", "depths": depths}
    if not depths:
        backbone = {"function": "standardised_stem"}
    width = leaves[f"{_BACKBONE}{'stem/' if depths else ''}conv/kernel"].shape[3]
    if width != 64:
        backbone["width"] = width
    return {"function": "hybrid_embed", "backbone": backbone}, 4 * 2 ** max(len(depths) - 1, 0)


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by the paths of flaim's leaves, in its layout."""
    return {f"params/{name}": value for name, value in _translated(tensors, info).items()}


def _translated(tensors: Tensors, info: CheckpointInfo) -> dict[str, Any]:
    leaves = _renamed(tensors)
    for pattern, whole, parts in _JOINED:
        for name in [name for name in leaves if re.search(pattern, name)]:
            names = [name.replace(f"/{parts[0]}/", f"/{part}/") for part in parts]
            if all(part in leaves for part in names):
                flat = {part: _heads_flattened(part, leaves.pop(part)) for part in names}
                alike = len({value.shape[:-1] for value in flat.values()}) == 1
                leaves |= (
                    {name.replace(f"/{parts[0]}/", f"/{whole}/"): _concatenated([*flat.values()])} if alike else flat
                )
    leaves = {name: _heads_flattened(name, value) for name, value in leaves.items()}
    if "pos_embed" not in leaves and not any(name.startswith(_BACKBONE) for name in leaves):
        leaves["pos_embed"] = _sines(leaves, info)
    return leaves


def _renamed(tensors: Tensors) -> dict[str, Any]:
    """The tensors under flaim's names; queries, keys and values are still separate, and heads still have an axis."""
    leaves: dict[str, Any] = {}
    for name, value in tensors.items():
        if _UNUSED.search(name):
            continue
        name = _PREFIX.sub("", name)
        layers = [(name, value)]
        if name.startswith(_STACK):
            layers = [
                (f"{_STACK[:-1]}_{i}/{name.removeprefix(_STACK)}", _part(value, i)) for i in range(value.shape[0])
            ]
        leaves |= {rename(layer, _RULES) or layer: part for layer, part in layers}
    if not any(name.startswith(f"{_BACKBONE}stages/") for name in leaves):
        leaves = {name.replace(f"{_BACKBONE}stem/", _BACKBONE): value for name, value in leaves.items()}
    return leaves


def _part(value: Any, index: int) -> Any:
    """One array of a stack."""
    if isinstance(value, np.ndarray):
        return value[index]
    return LazyArray(value.shape[1:], value.dtype, lambda: np.asarray(value)[index])


def _concatenated(parts: Sequence[Any]) -> LazyArray:
    """The arrays concatenated along the last axis."""
    shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
    return LazyArray(
        shape, np.dtype(parts[0].dtype), lambda: np.concatenate([np.asarray(part) for part in parts], axis=-1)
    )


def _heads_flattened(name: str, value: Any) -> Any:
    """Merge the axes of heads and head width in attention layers."""
    if re.search(r"/proj/kernel$", name) and len(value.shape) == 3:
        return value.reshape((-1, value.shape[2]))
    if re.search(r"/(query|key|value)/kernel$", name) and len(value.shape) == 3:
        return value.reshape((value.shape[0], -1))
    return value.reshape((-1,)) if name.endswith("/bias") else value


def _sines(leaves: Tensors, info: CheckpointInfo) -> np.ndarray:
    """Position embeddings of models that do not learn them: sines and cosines of rows and columns.

    Beyer et al., "Better plain ViT baselines for ImageNet-1k" (2022).
    """
    height, width, _, dim = leaves["patch_embed/proj/kernel"].shape
    rows, columns = np.mgrid[: info.input_size[0] // height, : info.input_size[1] // width].reshape(2, -1, 1)
    frequencies = 10_000.0 ** -(np.arange(dim // 4) / (dim // 4 - 1))
    waves = [wave(position * frequencies) for position in (columns, rows) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1)[None].astype(np.float32)


BIG_VISION = Converter("big_vision", recognises, describe, translate)
