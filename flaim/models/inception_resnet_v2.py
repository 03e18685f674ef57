"""Inception-ResNet V2: Inception's branches as residual branches, scaled down before they are added.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (2016). The
reference implementation is timm's `inception_resnet_v2.py`.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, conv_norm_relu, kernel, ops, relu

layer = partial(conv_norm_relu, norm=partial(batch_norm, eps=1e-3))
halving = partial(layer, kernel_size=3, stride=2, padding=0)
max_pool = partial(ops.max_pool, window=(3, 3), stride=(2, 2))


@kernel
def in_a_row(
    scope: Scope, x: Float[Array, "b h w c"], layers: Sequence[tuple], *, last: int | None = None
) -> Float[Array, "b h2 w2 f"]:
    """Convolutions given as (width, kernel size), then one of width `last` that halves the map; paths 0, 1, ..."""
    for i, (features, kernel_size) in enumerate(layers):
        x = layer(scope[i], x, features, kernel_size)
    return x if last is None else halving(scope[len(layers)], x, last)


@kernel
def mixed_5b(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
    """Four branches side by side: 1x1, 5x5, two 3x3 convolutions, average pooling."""
    pooled = ops.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_padding=False)
    branches = [
        layer(scope["branch0"], x, 96),
        in_a_row(scope["branch1"], x, ((48, 1), (64, 5))),
        in_a_row(scope["branch2"], x, ((64, 1), (96, 3), (96, 3))),
        layer(scope["branch3"][1], pooled, 64),
    ]
    return jnp.concatenate(branches, -1)


@kernel
def mixed_6a(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
    """Three branches that halve the map."""
    branches = [
        halving(scope["branch0"], x, 384),
        in_a_row(scope["branch1"], x, ((256, 1), (256, 3)), last=384),
        max_pool(x),
    ]
    return jnp.concatenate(branches, -1)


@kernel
def mixed_7a(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
    """Four branches that halve the map."""
    branches = [
        in_a_row(scope["branch0"], x, ((256, 1),), last=384),
        in_a_row(scope["branch1"], x, ((256, 1),), last=288),
        in_a_row(scope["branch2"], x, ((256, 1), (288, 3)), last=320),
        max_pool(x),
    ]
    return jnp.concatenate(branches, -1)


@kernel
def residual(
    scope: Scope, x: Float[Array, "b h w c"], *, width: int, branches: Sequence, scale: float, activate: bool = True
) -> Float[Array, "b h w c"]:
    """`x` plus `scale` times a projection (`conv2d`) of the concatenated branches.

    The first branch is a 1x1 convolution to `width`; the others are sequences of convolutions (width, kernel size).
    """
    outputs = [layer(scope["branch0"], x, width)]
    outputs += [in_a_row(scope[f"branch{i}"], x, layers) for i, layers in enumerate(branches, 1)]
    y = x + scale * conv(scope["conv2d"], jnp.concatenate(outputs, -1), x.shape[-1], kernel_size=1)
    return relu(y) if activate else y


_BLOCK_35: dict = {"width": 32, "branches": (((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))}
_BLOCK_17: dict = {"width": 192, "branches": (((128, 1), (160, (1, 7)), (192, (7, 1))),)}
_BLOCK_8: dict = {"width": 192, "branches": (((192, 1), (224, (1, 3)), (256, (3, 1))),)}


@kernel
def inception_resnet_v2(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: tuple[int, int, int] = (10, 20, 9),
    features: int = 1536,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A stem of convolutions and three stages of residual blocks. Images must be at least 75x75.

    Args:
        depths: Scaled blocks in each stage; one unscaled block follows the last.
        features: Width of the last convolution.
    """
    x = halving(scope["conv2d_1a"], x, 32)
    x = layer(scope["conv2d_2a"], x, 32, 3, padding=0)
    x = layer(scope["conv2d_2b"], x, 64, 3)
    scope.capture("stage_0", x)
    x = layer(scope["conv2d_3b"], max_pool(x), 80)
    x = layer(scope["conv2d_4a"], x, 192, 3, padding=0)
    scope.capture("stage_1", x)

    x = scope["mixed_5b"].call(mixed_5b, max_pool(x))
    x = scope["repeat"].repeat(residual, x, depths[0], scale=0.17, **_BLOCK_35)
    scope.capture("stage_2", x)
    x = scope["mixed_6a"].call(mixed_6a, x)
    x = scope["repeat_1"].repeat(residual, x, depths[1], scale=0.1, **_BLOCK_17)
    scope.capture("stage_3", x)
    x = scope["mixed_7a"].call(mixed_7a, x)
    x = scope["repeat_2"].repeat(residual, x, depths[2], scale=0.2, **_BLOCK_8)
    x = scope["block8"].call(residual, x, scale=1.0, activate=False, **_BLOCK_8)
    x = layer(scope["conv2d_7b"], x, features)
    scope.capture("stage_4", x)
    return classifier_head(scope["classif"], x, n_classes, drop_rate=drop_rate)


VARIANTS = {"inception_resnet_v2": {"input_size": 299}}

FAMILY = Family(
    inception_resnet_v2,
    "classif",
    VARIANTS,
    timm=Timm(("inception_resnet_v2",)),
    tiny=("inception_resnet_v2", {"input_size": 107, "depths": (2, 1, 1), "features": 64}),
)
