"""Keras' Inception V3. Its layers have generated names, numbered in the order of creation."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")

# For each kind of block: the layers in the order in which Keras creates them, and their convolutions (c) and norms (n)
# in the order of `model.layers`, which is by distance from the output.
_KINDS = {
    "a": (
        "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool",
        "c3 n3 c1 c4 n1 n4 c0 c2 c5 c6 n0 n2 n5 n6",
    ),
    "b": ("branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", "c1 n1 c2 n2 c0 c3 n0 n3"),
    "c": (
        "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 "
        "branch7x7dbl_5 branch_pool",
        "c4 n4 c5 n5 c1 c6 n1 n6 c2 c7 n2 n7 c0 c3 c8 c9 n0 n3 n8 n9",
    ),
    "d": (
        "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
        "c2 n2 c3 n3 c0 c4 n0 n4 c1 c5 n1 n5",
    ),
    "e": (
        "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a "
        "branch3x3dbl_3b branch_pool",
        "c4 n4 c1 c5 n1 n5 c2 c3 c6 c7 c0 n2 n3 n6 n7 c8 n0 n8",
    ),
}
_BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), "a"),
    "Mixed_6a": "b",
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), "c"),
    "Mixed_7a": "d",
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), "e"),
}
_PATHS = [*_STEM, *(f"{block}/{layer}" for block, kind in _BLOCKS.items() for layer in _KINDS[kind][0].split())]


def _made_up(kind: str, number: int) -> str:
    name = {"c": "conv2d", "n": "batch_normalization"}[kind]
    return f"{name}_{number}" if number else name


def _names() -> Iterator[str]:
    for i in range(len(_STEM)):
        yield from (_made_up("c", i), _made_up("n", i))
    first = len(_STEM)
    for kind in _BLOCKS.values():
        layers, order = _KINDS[kind]
        yield from (_made_up(layer[0], first + int(layer[1:])) for layer in order.split())
        first += len(layers.split())
    yield "predictions"


def _layer(match) -> str:
    kind, number = match.groups()
    return f"{_PATHS[int(number or 0)]}/{'conv' if kind == 'conv2d' else 'bn'}"


TABLE = Table(
    family="inception_v3",
    preprocessing="tf",
    pairs=by_rules(
        _names,
        (
            (r"(conv2d|batch_normalization)(?:_(\d+))?", _layer),
            (r"predictions", "fc"),
        ),
    ),
    models={"inception_v3": Entry("inception_v3", (), {"count_padding": False}, 299)},
)
