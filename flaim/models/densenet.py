"""DenseNet: every layer of a block sees the outputs of all layers before it.

Huang et al., "Densely Connected Convolutional Networks" (2017), the BC form: a bottleneck in each layer, transitions
that halve the width. The reference implementation is timm's `densenet.py`. In Keras' DenseNets the batch norms have
another epsilon, `norm_eps`; all else is the same.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, dropout, kernel, relu
from flaim_core.layers.pooling import blurred_max_pooling, halve, max_pooling


@kernel
def dense_layer(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    bottleneck: int,
    norm: Callable,
    drop_rate: float,
) -> Float[Array, "b h w d"]:
    """`x` with `features` new channels appended: a 1x1 convolution to `bottleneck * features`, then a 3x3 one."""
    y = conv(scope["conv1"], relu(norm(scope["norm1"], x)), bottleneck * features, kernel_size=1, bias=False)
    y = conv(scope["conv2"], relu(norm(scope["norm2"], y)), features, kernel_size=3, bias=False)
    return jnp.concatenate([x, dropout(scope["drop"], y, drop_rate)], axis=-1)


@kernel
def transition(scope: Scope, x: Float[Array, "b h w c"], *, norm: Callable) -> Float[Array, "b h2 w2 d"]:
    """Halves the width and the resolution."""
    x = conv(scope["conv"], relu(norm(scope["norm"], x)), x.shape[-1] // 2, kernel_size=1, bias=False)
    return halve(x)


@kernel
def densenet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    bottleneck: int = 4,
    stem_widths: Sequence[int] | None = None,
    stem_pool: Callable = max_pooling,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    drop_rate: float = 0.0,
    layer_drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Blocks of dense layers with transitions between them.

    Args:
        depths: Layers of each block.
        growth: Channels that each layer adds.
        bottleneck: Width of a layer's hidden map, in multiples of `growth`.
        stem_widths: Widths of three 3x3 convolutions; None for one 7x7 of width `2 * growth`.
        stem_pool: Function `(scope, x, norm)` that halves the stem's output once more.
        norm_eps: Epsilon of all norms; None for the norm's own.
        layer_drop_rate: Dropout rate of each layer's new channels.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    net = scope["features"]
    for i, width in enumerate(stem_widths or (2 * growth,)):
        kernel_size, stride = 3 if stem_widths else 7, 2 if i == 0 else 1
        x = conv(net[f"conv{i}"], x, width, kernel_size=kernel_size, stride=stride, bias=False)
        x = relu(norm(net[f"norm{i}"], x))
    scope.capture("stage_0", x)
    x = stem_pool(net["pool0"], x, norm)

    layer = partial(dense_layer, features=growth, bottleneck=bottleneck, norm=norm, drop_rate=layer_drop_rate)
    for stage, depth in enumerate(depths, 1):
        for i in range(1, depth + 1):
            x = net[f"denseblock{stage}"][f"denselayer{i}"].call(layer, x)
        if stage < len(depths):
            scope.capture(f"stage_{stage}", x)
            x = transition(net[f"transition{stage}"], x, norm=norm)
    x = relu(norm(net["norm5"], x))
    scope.capture(f"stage_{len(depths)}", x)
    return classifier_head(scope["classifier"], x, n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "densenet121": {"depths": (6, 12, 24, 16)},
    "densenetblur121d": {"depths": (6, 12, 24, 16), "stem_widths": (32, 32, 64), "stem_pool": blurred_max_pooling},
    "densenet161": {"depths": (6, 12, 36, 24), "growth": 48},
    "densenet169": {"depths": (6, 12, 32, 32)},
    "densenet201": {"depths": (6, 12, 48, 32)},
    "densenet264d": {"depths": (6, 12, 64, 48), "growth": 48, "stem_widths": (48, 48, 96)},
}

FAMILY = Family(
    densenet,
    "classifier",
    VARIANTS,
    choices={"blurred_max_pooling": blurred_max_pooling, "max_pooling": max_pooling},
    timm=Timm(("densenet",)),
    tiny=("densenetblur121d", {"input_size": 32, "depths": (1, 2), "growth": 8, "stem_widths": (8, 8, 16)}),
)
