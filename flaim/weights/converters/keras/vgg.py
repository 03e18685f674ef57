"""Keras' VGGs."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Flattened, Table


def _names(depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    position = 0  # flaim also numbers the activations and poolings between the convolutions
    for stage, depth in enumerate(depths, 1):
        for i in range(1, depth + 1):
            yield f"block{stage}_conv{i}", f"features/{position}"
            position += 2
        position += 1
    yield from (("fc1", "pre_logits/fc1"), ("fc2", "pre_logits/fc2"), ("predictions", "head/fc"))


TABLE = Table(
    family="vgg",
    preprocessing="caffe",
    pairs=_names,
    models={
        "vgg16": Entry("vgg16", ((2, 2, 3, 3, 3),), {"head_kernel_size": 7}),
        "vgg19": Entry("vgg19", ((2, 2, 4, 4, 4),), {"head_kernel_size": 7}),
    },
    head=("fc1", "fc2"),
    flattened=Flattened("fc1", "block5_conv1", "head_kernel_size"),
)
