"""Keras' MobileNets of the first and third version."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table

_V1_DEPTHS = (1, 2, 2, 6, 2)


def _blocks(depths: tuple[int, ...]) -> list[str]:
    """flaim's paths of the blocks, which Keras numbers across stages."""
    return [f"blocks/{stage}/{i}" for stage, depth in enumerate(depths) for i in range(depth)]


def _v1_names() -> Iterator[tuple[str, str]]:
    yield from (("conv1", "conv_stem"), ("conv1_bn", "bn1"))
    for i, path in enumerate(_blocks(_V1_DEPTHS), 1):
        yield from ((f"conv_dw_{i}", f"{path}/conv_dw"), (f"conv_dw_{i}_bn", f"{path}/bn1"))
        yield from ((f"conv_pw_{i}", f"{path}/conv_pw"), (f"conv_pw_{i}_bn", f"{path}/bn2"))
    yield "conv_preds", "classifier"


MOBILENET = Table(
    family="efficientnet",
    preprocessing="tf",
    pairs=_v1_names,
    models={
        f"mobilenet_{alpha}": Entry(f"tf_mobilenetv1_{alpha.replace('.', '')}") for alpha in ("0.25", "0.50", "0.75")
    }
    | {"mobilenet_1.00": Entry("tf_mobilenetv1_100")},
    kinds=((r"^conv_dw_\d+$", "depthwise_conv2d"),),
    multiplied=("conv_dw_1", "depth_multiplier"),
)

_EXPANDING = {
    "expand": "conv_pw",
    "expand_bn": "bn1",
    "depthwise": "conv_dw",
    "depthwise_bn": "bn2",
    "squeeze_excite_conv": "se/conv_reduce",
    "squeeze_excite_conv_1": "se/conv_expand",
    "project": "conv_pwl",
    "project_bn": "bn3",
}
_FIRST = {
    **{layer: path for layer, path in _EXPANDING.items() if not layer.startswith("expand")},
    "depthwise_bn": "bn1",
    "project": "conv_pw",
    "project_bn": "bn2",
}


def _v3_names(depths: tuple[int, ...], gated: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    yield from (("conv", "conv_stem"), ("conv_bn", "bn1"))
    for i, path in enumerate(_blocks(depths)):
        prefix, layers = (f"expanded_conv_{i}", _EXPANDING) if i else ("expanded_conv", _FIRST)
        for layer, name in layers.items():
            if i in gated or not layer.startswith("squeeze"):
                yield f"{prefix}_{layer}", f"{path}/{name}"
    last = f"blocks/{len(depths)}/0"
    yield from (("conv_1", f"{last}/conv"), ("conv_1_bn", f"{last}/bn1"))
    yield from (("conv_2", "conv_head"), ("logits", "classifier"))


_LARGE, _LARGE_GATED = (1, 2, 3, 4, 2, 3), (3, 4, 5, 10, 11, 12, 13, 14)
_SMALL, _SMALL_GATED = (1, 2, 3, 2, 3), (0, 3, 4, 5, 6, 7, 8, 9, 10)

MOBILENET_V3 = Table(
    family="mobilenetv3",
    preprocessing="tf",
    pairs=_v3_names,
    models={
        "mobilenetv3_large_0.75": Entry("tf_mobilenetv3_large_075", (_LARGE, _LARGE_GATED)),
        "mobilenetv3_large_1.00": Entry("tf_mobilenetv3_large_100", (_LARGE, _LARGE_GATED)),
        "mobilenetv3_large_minimalistic": Entry("tf_mobilenetv3_large_minimal_100", (_LARGE, ())),
        "mobilenetv3_small_0.75": Entry("tf_mobilenetv3_small_075", (_SMALL, _SMALL_GATED)),
        "mobilenetv3_small_1.00": Entry("tf_mobilenetv3_small_100", (_SMALL, _SMALL_GATED)),
        "mobilenetv3_small_minimalistic": Entry("tf_mobilenetv3_small_minimal_100", (_SMALL, ())),
    },
    kinds=((r"_depthwise$", "depthwise_conv2d"),),
    # Such as `expanded_conv_1/expand/BatchNorm`, `Conv_1`, `Logits`.
    synonyms=((r"/BatchNorm$", "_bn"), (r"/", "_"), (r"[A-Z]", lambda match: match[0].lower())),
    head=("conv_2",),
)
