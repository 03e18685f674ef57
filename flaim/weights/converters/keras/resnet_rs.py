"""Keras' ResNet-RS, from TensorFlow's Keras. Only the names differ from timm's; the image normalisation is the same."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table, by_rules

# Some of the norms' names lack an underscore.
_LAYERS = {
    "_conv_1": "conv1",
    "batch_norm_1": "bn1",
    "_conv_2": "conv2",
    "_batch_norm_2": "bn2",
    "_conv_3": "conv3",
    "_batch_norm_3": "bn3",
    "_se_se_reduce": "se/fc1",
    "_se_se_expand": "se/fc2",
    "_projection_conv": "downsample/1",
    "_projection_batch_norm": "downsample/2",
}
_STEM = {
    "conv_1": "conv1/0",
    "batch_norm_1": "conv1/1",
    "conv_2": "conv1/3",
    "batch_norm_2": "conv1/4",
    "conv_3": "conv1/6",
    "batch_norm_3": "bn1",
    "conv_4": "maxpool/0",
    "batch_norm_4": "maxpool/1",
}


def _names(depths: tuple[int, ...]) -> Iterator[str]:
    yield from (f"stem_1_stem_{layer}" for layer in _STEM)
    for stage, depth in enumerate(depths, 2):
        for i in range(depth):
            layers = _LAYERS if i == 0 else list(_LAYERS)[:-2]
            yield from (f"BlockGroup{stage}__block_{i}_{layer}" for layer in layers)
    yield "predictions"


def _layer(match) -> str:
    stage, block, layer = match.groups()
    return f"layer{int(stage) - 1}/{block}/{_LAYERS[layer]}"


TABLE = Table(
    family="resnet",
    preprocessing="torch",
    pairs=by_rules(
        _names,
        (
            (r"BlockGroup(\d)__block_(\d+)_(\w+)", _layer),
            (r"stem_1_stem_(\w+)", lambda match: _STEM[match[1]]),
            (r"predictions", "fc"),
        ),
    ),
    models={
        f"resnet-rs-{layers}": Entry(f"resnetrs{layers}", (depths,), {}, size)
        for layers, depths, size in (
            (50, (3, 4, 6, 3), 160),
            (101, (3, 4, 23, 3), 192),
            (152, (3, 8, 36, 3), 256),
            (200, (3, 24, 36, 3), 256),
            (270, (4, 29, 53, 4), 256),
            (350, (4, 36, 72, 4), 320),
            (420, (4, 44, 87, 4), 320),
        )
    },
    synonyms=((r"stem_\d+_", "stem_1_"),),  # Keras numbers the stems of a session
)
