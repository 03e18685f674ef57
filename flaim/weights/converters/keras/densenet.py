"""Keras' DenseNets."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules


def _names(depths: tuple[int, ...]) -> Iterator[str]:
    yield from ("conv1_conv", "conv1_bn")
    for stage, depth in enumerate(depths, 2):
        for i in range(1, depth + 1):
            yield from (f"conv{stage}_block{i}_{layer}" for layer in ("0_bn", "1_conv", "1_bn", "2_conv"))
        yield from (f"pool{stage}_bn", f"pool{stage}_conv") if stage < 5 else ("bn", "predictions")


def _layer(match) -> str:
    stage, layer, number, kind = match.groups()
    # Keras numbers the norms of a layer from 0 and the convolutions from 1.
    name = f"norm{int(number) + 1}" if kind == "bn" else f"conv{number}"
    return f"features/denseblock{int(stage) - 1}/denselayer{layer}/{name}"


def _transition(match) -> str:
    return f"features/transition{int(match[1]) - 1}/{'norm' if match[2] == 'bn' else 'conv'}"


def _entry(architecture: str, *depths: int) -> Entry:
    return Entry(architecture, (depths,), {"norm_eps": 1.001e-5})


TABLE = Table(
    family="densenet",
    preprocessing="torch",
    pairs=by_rules(
        _names,
        (
            (r"conv(\d)_block(\d+)_(\d)_(bn|conv)", _layer),
            (r"pool(\d)_(bn|conv)", _transition),
            (r"conv1_conv", "features/conv0"),
            (r"conv1_bn", "features/norm0"),
            (r"bn", "features/norm5"),
            (r"predictions", "classifier"),
        ),
    ),
    models={
        "densenet121": _entry("densenet121", 6, 12, 24, 16),
        "densenet169": _entry("densenet169", 6, 12, 32, 32),
        "densenet201": _entry("densenet201", 6, 12, 48, 32),
    },
)
