"""Keras' ResNets of the first version."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules

_BLOCK = ("1_conv", "1_bn", "2_conv", "2_bn", "3_conv", "3_bn")
_FIRST_BLOCK = ("1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv", "0_bn", "3_bn")


def _names(depths: tuple[int, ...]) -> Iterator[str]:
    yield from ("conv1_conv", "conv1_bn")
    for stage, depth in enumerate(depths, 2):
        for i in range(1, depth + 1):
            yield from (f"conv{stage}_block{i}_{layer}" for layer in (_FIRST_BLOCK if i == 1 else _BLOCK))
    yield "predictions"


def _layer(match) -> str:
    stage, block, number, kind = match.groups()
    name = f"{kind}{number}"
    name = {"conv0": "downsample/0", "bn0": "downsample/1"}.get(name, name)
    return f"layer{int(stage) - 1}/{int(block) - 1}/{name}"


def _entry(architecture: str, *depths: int) -> Entry:
    return Entry(architecture, (depths,), {"conv_bias": True, "norm_eps": 1.001e-5, "stride_first": True})


TABLE = Table(
    family="resnet",
    preprocessing="caffe",
    pairs=by_rules(
        _names,
        (
            (r"conv(\d)_block(\d+)_(\d)_(bn|conv)", _layer),
            (r"conv1_(bn|conv)", r"\g<1>1"),
            (r"predictions", "fc"),
        ),
    ),
    models={
        "resnet50": _entry("resnet50", 3, 4, 6, 3),
        "resnet101": _entry("resnet101", 3, 4, 23, 3),
        "resnet152": _entry("resnet152", 3, 8, 36, 3),
    },
)
