"""Keras' ConvNeXts. The name of each layer starts with the model's."""

from collections.abc import Iterator

from flaim.weights.converters.keras._table import Entry, Table

_BLOCK = {
    "depthwise_conv": "conv_dw",
    "layernorm": "norm",
    "pointwise_conv_1": "mlp/fc1",
    "pointwise_conv_2": "mlp/fc2",
}


def _names(*depths: int) -> Iterator[tuple[str, str]]:
    for stage, depth in enumerate(depths):
        for i in range(depth):
            name, path = f"stage_{stage}_block_{i}", f"stages/{stage}/blocks/{i}"
            yield from ((f"{name}_{layer}", f"{path}/{child}") for layer, child in _BLOCK.items())
            yield f"{name}_layer_scale", f"{path}:gamma"
    yield from (("head_layernorm", "head/norm"), ("head_dense", "head/fc"))
    # The stem and the downsampling layers are nested models, which come after the model's own layers.
    yield from (("stem_conv", "stem/0"), ("stem_layernorm", "stem/1"))
    for i in range(len(depths) - 1):
        yield f"downsampling_layernorm_{i}", f"stages/{i + 1}/downsample/0"
        yield f"downsampling_conv_{i}", f"stages/{i + 1}/downsample/1"


TABLE = Table(
    family="convnext",
    preprocessing="torch",  # built in
    pairs=_names,
    models={
        "convnext_tiny": Entry("convnext_tiny", (3, 3, 9, 3)),
        **{
            f"convnext_{size}": Entry(f"convnext_{size}", (3, 3, 27, 3))
            for size in ("small", "base", "large", "xlarge")
        },
    },
    kinds=(
        (r"layernorm", "layer_normalization"),
        (r"layer_scale", "layer_scale"),
        (r"pointwise_conv_|head_dense", "dense"),
        (r"", "conv2d"),
    ),
    # Without its top, the model ends in a norm with a generated name.
    synonyms=((r"^layer_normalization$", "head_layernorm"), (r"^.*(?=(stage_\d+_block|stem|downsampling|head)_)", "")),
    first="stem_conv",
)
