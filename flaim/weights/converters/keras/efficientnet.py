"""Keras' EfficientNets and MobileNetV2s."""

import math
from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules

_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_BLOCK = ("expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand", "project_conv", "project_bn")

# Keras' names of a block's layers to flaim's. Blocks of the first stage do not expand.
_FIRST_STAGE = {
    "dwconv": "conv_dw",
    "bn": "bn1",
    "se_reduce": "se/conv_reduce",
    "se_expand": "se/conv_expand",
    "project_conv": "conv_pw",
    "project_bn": "bn2",
}
_OTHER_STAGES = {
    **_FIRST_STAGE,
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "bn": "bn2",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}


def _names(depth: float) -> Iterator[str]:
    yield from ("normalization", "stem_conv", "stem_bn")
    for stage, blocks in enumerate(_DEPTHS, 1):
        for block in range(math.ceil(blocks * depth)):
            for layer in _BLOCK[2:] if stage == 1 else _BLOCK:
                yield f"block{stage}{chr(ord('a') + block)}_{layer}"
    yield from ("top_conv", "top_bn", "predictions")


def _layer(match) -> str:
    stage, block, layer = match.groups()
    layers = _FIRST_STAGE if stage == "1" else _OTHER_STAGES
    return f"blocks/{int(stage) - 1}/{ord(block) - ord('a')}/{layers[layer]}"


EFFICIENTNET = Table(
    family="efficientnet",
    preprocessing="built in",
    pairs=by_rules(
        _names,
        (
            (r"normalization", ""),
            (r"block(\d)([a-z])_(\w+)", _layer),
            (r"stem_conv", "conv_stem"),
            (r"stem_bn", "bn1"),
            (r"top_conv", "conv_head"),
            (r"top_bn", "bn2"),
            (r"predictions", "classifier"),
        ),
    ),
    models={
        f"efficientnetb{i}": Entry(f"tf_efficientnet_b{i}", (depth,), {}, size)
        for i, (depth, size) in enumerate(
            ((1.0, 224), (1.1, 240), (1.2, 260), (1.4, 300), (1.8, 380), (2.2, 456), (2.6, 528), (3.1, 600))
        )
    },
)

_MOBILENET_DEPTHS = (1, 2, 3, 4, 3, 3, 1)
_MOBILENET_BLOCKS = [(stage, i) for stage, depth in enumerate(_MOBILENET_DEPTHS) for i in range(depth)]


def _mobilenet_names() -> Iterator[str]:
    yield from ("Conv1", "bn_Conv1")
    for i in range(len(_MOBILENET_BLOCKS)):
        prefix = f"block_{i}" if i else "expanded_conv"
        for layer in ("expand", "depthwise", "project")[i == 0 :]:
            yield from (f"{prefix}_{layer}", f"{prefix}_{layer}_BN")
    yield from ("Conv_1", "Conv_1_bn", "predictions")


def _mobilenet_layer(match) -> str:
    block, layer, norm = match.groups()
    stage, i = _MOBILENET_BLOCKS[int(block or 0)]
    # EfficientNet's names of the same layers.
    name = {"expand": "expand_conv", "depthwise": "dwconv", "project": "project_conv"}[layer]
    if norm:
        name = {"expand": "expand_bn", "depthwise": "bn", "project": "project_bn"}[layer]
    return f"blocks/{stage}/{i}/{(_OTHER_STAGES if block else _FIRST_STAGE)[name]}"


MOBILENET_V2 = Table(
    family="efficientnet",
    preprocessing="tf",
    pairs=by_rules(
        _mobilenet_names,
        (
            (r"(?:block_(\d+)|expanded_conv)_(expand|depthwise|project)(_BN)?", _mobilenet_layer),
            (r"Conv1", "conv_stem"),
            (r"bn_Conv1", "bn1"),
            (r"Conv_1", "conv_head"),
            (r"Conv_1_bn", "bn2"),
            (r"predictions", "classifier"),
        ),
    ),
    models={
        f"mobilenetv2_{alpha}": Entry(
            f"mobilenetv2_{alpha.replace('.', '')}", (), {"padding": "same", "norm_eps": 1e-3}
        )
        for alpha in ("0.35", "0.50", "0.75", "1.00", "1.30", "1.40")
    },
)
