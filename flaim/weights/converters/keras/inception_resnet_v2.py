"""Keras' Inception-ResNet V2. Most layers have generated names, numbered in the order of creation."""

from collections.abc import Iterator, Sequence

from flaim.weights.converters.keras._table import Entry, Table

# For each kind of block: flaim's paths of the layers in the order in which Keras creates them, and their convolutions
# (c) and norms (n) in the order of `model.layers`, which is by distance from the output.
_ROW = "c1 n1 c2 n2 c0 c3 n0 n3"
_KINDS = {
    "stem": ("conv2d_1a conv2d_2a conv2d_2b conv2d_3b conv2d_4a", "c0 n0 c1 n1 c2 n2 c3 n3 c4 n4"),
    "mixed_5b": (
        "branch0 branch1/0 branch1/1 branch2/0 branch2/1 branch2/2 branch3/1",
        "c3 n3 c1 c4 n1 n4 c0 c2 c5 c6 n0 n2 n5 n6",
    ),
    "block35": (
        "branch0 branch1/0 branch1/1 branch2/0 branch2/1 branch2/2",
        "c3 n3 c1 c4 n1 n4 c0 c2 c5 n0 n2 n5",
    ),
    "mixed_6a": ("branch0 branch1/0 branch1/1 branch1/2", _ROW),
    "block17": ("branch0 branch1/0 branch1/1 branch1/2", _ROW),
    "mixed_7a": (
        "branch0/0 branch0/1 branch1/0 branch1/1 branch2/0 branch2/1 branch2/2",
        "c4 n4 c0 c2 c5 n0 n2 n5 c1 c3 c6 n1 n3 n6",
    ),
    "block8": ("branch0 branch1/0 branch1/1 branch1/2", _ROW),
}


def _blocks(depths: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """Kind, path and number in Keras of each block."""
    yield from (("stem", "", 0), ("mixed_5b", "mixed_5b/", 0))
    yield from (("block35", f"repeat/{i}/", i + 1) for i in range(depths[0]))
    yield "mixed_6a", "mixed_6a/", 0
    yield from (("block17", f"repeat_1/{i}/", i + 1) for i in range(depths[1]))
    yield "mixed_7a", "mixed_7a/", 0
    yield from (("block8", f"repeat_2/{i}/", i + 1) for i in range(depths[2]))
    yield "block8", "block8/", 10


def _names(*depths: int) -> Iterator[tuple[str, str]]:
    first = 0
    for kind, parent, block in _blocks(depths):
        paths, order = (text.split() for text in _KINDS[kind])
        for layer in order:
            number = int(layer[1:])
            name, leaf = ("conv2d", "conv") if layer[0] == "c" else ("batch_normalization", "bn")
            yield f"{name}_{first + number}".removesuffix("_0"), f"{parent}{paths[number]}/{leaf}"
        first += len(paths)
        if block:
            yield f"{kind}_{block}_conv", f"{parent}conv2d"
    yield from (("conv_7b", "conv2d_7b/conv"), ("conv_7b_bn", "conv2d_7b/bn"), ("predictions", "classif"))


TABLE = Table(
    family="inception_resnet_v2",
    preprocessing="tf",
    pairs=_names,
    models={"inception_resnet_v2": Entry("inception_resnet_v2", (10, 20, 9), {}, 299)},
)
