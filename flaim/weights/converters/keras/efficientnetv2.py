"""Keras' EfficientNetV2s."""

import math
from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table

# Keras' names of layers to flaim's: for the first stage, for the next two, and for the others.
_PLAIN = {"project_conv": "conv", "project_bn": "bn1"}
_FUSED = {"expand_conv": "conv_exp", "expand_bn": "bn1", "project_conv": "conv_pwl", "project_bn": "bn2"}
_DEPTHWISE = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "dwconv2": "conv_dw",
    "bn": "bn2",
    "se_reduce": "se/conv_reduce",
    "se_expand": "se/conv_expand",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}


def _names(*depths: int) -> Iterator[tuple[str, str]]:
    yield from (("stem_conv", "conv_stem"), ("stem_bn", "bn1"))
    for stage, depth in enumerate(depths):
        for i in range(depth):
            for layer, name in ((_PLAIN, _FUSED, _FUSED)[stage] if stage < 3 else _DEPTHWISE).items():
                yield f"block{stage + 1}{chr(ord('a') + i)}_{layer}", f"blocks/{stage}/{i}/{name}"
    yield from (("top_conv", "conv_head"), ("top_bn", "bn2"), ("predictions", "classifier"))


def _base(size: str, depth: float, input_size: int) -> Entry:
    depths = tuple(math.ceil(blocks * depth) for blocks in (1, 2, 2, 3, 5, 8))
    return Entry(f"tf_efficientnetv2_{size}", depths, {}, input_size)


# Both normalise their images themselves, each in its own way.
BASE = Table(
    family="efficientnet",
    preprocessing="torch",
    pairs=_names,
    models={
        "efficientnetv2-b0": _base("b0", 1.0, 224),
        "efficientnetv2-b1": _base("b1", 1.1, 240),
        "efficientnetv2-b2": _base("b2", 1.2, 260),
        "efficientnetv2-b3": _base("b3", 1.4, 300),
    },
)
LARGE = BASE._replace(
    preprocessing="128",
    models={
        "efficientnetv2-s": Entry("tf_efficientnetv2_s", (2, 4, 4, 6, 9, 15), {}, 384),
        "efficientnetv2-m": Entry("tf_efficientnetv2_m", (3, 5, 5, 7, 14, 18, 5), {}, 480),
        "efficientnetv2-l": Entry("tf_efficientnetv2_l", (4, 7, 7, 10, 19, 25, 7), {}, 480),
    },
)
