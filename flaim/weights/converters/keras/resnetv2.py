"""Keras' ResNets of the second version."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules

_BLOCK = ("preact_bn", "1_conv", "1_bn", "2_conv", "2_bn", "3_conv")
_FIRST_BLOCK = ("preact_bn", "1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv")
_LAYERS = {
    "preact_bn": "norm1",
    "0_conv": "downsample/conv",
    "1_conv": "conv1",
    "1_bn": "norm2",
    "2_conv": "conv2",
    "2_bn": "norm3",
    "3_conv": "conv3",
}


def _names(depths: tuple[int, ...]) -> Iterator[str]:
    yield "conv1_conv"
    for stage, depth in enumerate(depths, 2):
        for i in range(1, depth + 1):
            yield from (f"conv{stage}_block{i}_{layer}" for layer in (_FIRST_BLOCK if i == 1 else _BLOCK))
    yield from ("post_bn", "predictions")


def _layer(match) -> str:
    stage, block, layer = match.groups()
    return f"stages/{int(stage) - 2}/blocks/{int(block) - 1}/{_LAYERS[layer]}"


def _entry(architecture: str, *depths: int) -> Entry:
    overrides = {
        "conv_bias": True,
        "norm_eps": 1.001e-5,
        "stem_pool": {"function": "zero_padded_max_pooling"},
        "stride_last": True,
        "strides": (2, 2, 2, 1),
    }
    return Entry(architecture, (depths,), overrides)


TABLE = Table(
    family="resnetv2",
    preprocessing="tf",
    pairs=by_rules(
        _names,
        (
            (r"conv(\d)_block(\d+)_(\w+)", _layer),
            (r"conv1_conv", "stem/conv"),
            (r"post_bn", "norm"),
            (r"predictions", "head/fc"),
        ),
    ),
    models={
        "resnet50v2": _entry("resnetv2_50", 3, 4, 6, 3),
        "resnet101v2": _entry("resnetv2_101", 3, 4, 23, 3),
        "resnet152v2": _entry("resnetv2_152", 3, 8, 36, 3),
    },
)
