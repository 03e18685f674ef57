"""Inception V3: branches of convolutions of several sizes side by side, factorised into narrow ones.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015). The reference implementation is
timm's `inception_v3.py`; the auxiliary classifier, which only helps training from scratch, is left out. Keras averages
over existing pixels only at a map's border (`count_padding=False`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv_norm_relu, kernel, ops

max_pool = partial(ops.max_pool, window=(3, 3), stride=(2, 2))


def average_pool(x: Float[Array, "b h w c"], *, count_padding: bool) -> Float[Array, "b h w c"]:
    """The mean of the 3x3 pixels around each one; those beyond the border count as zeros or not at all."""
    return ops.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_padding=count_padding)


# In all blocks `layer` is `conv_norm_relu` with the network's norm, `average` is `average_pool`.
@kernel
def block_a(
    scope: Scope, x: Float[Array, "b h w c"], pool_features: int, *, layer: Callable, average: Callable
) -> Float[Array, "b h w f"]:
    """Branches of 1x1, 5x5, two 3x3 convolutions, and pooling."""
    five = layer(scope["branch5x5_2"], layer(scope["branch5x5_1"], x, 48), 64, 5)
    three = layer(scope["branch3x3dbl_2"], layer(scope["branch3x3dbl_1"], x, 64), 96, 3)
    three = layer(scope["branch3x3dbl_3"], three, 96, 3)
    pooled = layer(scope["branch_pool"], average(x), pool_features)
    return jnp.concatenate([layer(scope["branch1x1"], x, 64), five, three, pooled], axis=-1)


@kernel
def block_b(scope: Scope, x: Float[Array, "b h w c"], *, layer: Callable) -> Float[Array, "b h2 w2 f"]:
    """Halves the resolution: branches of one and of two 3x3 convolutions, and pooling."""
    three = layer(scope["branch3x3"], x, 384, 3, stride=2, padding=0)
    double = layer(scope["branch3x3dbl_2"], layer(scope["branch3x3dbl_1"], x, 64), 96, 3)
    double = layer(scope["branch3x3dbl_3"], double, 96, 3, stride=2, padding=0)
    return jnp.concatenate([three, double, max_pool(x)], axis=-1)


@kernel
def block_c(
    scope: Scope, x: Float[Array, "b h w c"], width: int, *, layer: Callable, average: Callable
) -> Float[Array, "b h w f"]:
    """Branches of 1x1, one and two 7x7 convolutions, each as 1x7 and 7x1, and pooling."""
    single = layer(scope["branch7x7_1"], x, width)
    single = layer(scope["branch7x7_2"], single, width, (1, 7))
    single = layer(scope["branch7x7_3"], single, 192, (7, 1))
    double = layer(scope["branch7x7dbl_1"], x, width)
    for i, size, features in ((2, (7, 1), width), (3, (1, 7), width), (4, (7, 1), width), (5, (1, 7), 192)):
        double = layer(scope[f"branch7x7dbl_{i}"], double, features, size)
    pooled = layer(scope["branch_pool"], average(x), 192)
    return jnp.concatenate([layer(scope["branch1x1"], x, 192), single, double, pooled], axis=-1)


@kernel
def block_d(scope: Scope, x: Float[Array, "b h w c"], *, layer: Callable) -> Float[Array, "b h2 w2 f"]:
    """Halves the resolution: branches of 3x3 and of 7x7 then 3x3 convolutions, and pooling."""
    three = layer(scope["branch3x3_2"], layer(scope["branch3x3_1"], x, 192), 320, 3, stride=2, padding=0)
    seven = layer(scope["branch7x7x3_1"], x, 192)
    seven = layer(scope["branch7x7x3_2"], seven, 192, (1, 7))
    seven = layer(scope["branch7x7x3_3"], seven, 192, (7, 1))
    seven = layer(scope["branch7x7x3_4"], seven, 192, 3, stride=2, padding=0)
    return jnp.concatenate([three, seven, max_pool(x)], axis=-1)


@kernel
def block_e(scope: Scope, x: Float[Array, "b h w c"], *, layer: Callable, average: Callable) -> Float[Array, "b h w f"]:
    """Branches of 1x1, one and two 3x3 convolutions, the last of each as 1x3 and 3x1 side by side, and pooling."""
    three = layer(scope["branch3x3_1"], x, 384)
    double = layer(scope["branch3x3dbl_2"], layer(scope["branch3x3dbl_1"], x, 448), 384, 3)
    parts = [
        layer(scope[f"{name}{part}"], y, 384, size)
        for name, y in (("branch3x3_2", three), ("branch3x3dbl_3", double))
        for part, size in (("a", (1, 3)), ("b", (3, 1)))
    ]
    pooled = layer(scope["branch_pool"], average(x), 192)
    return jnp.concatenate([layer(scope["branch1x1"], x, 320), *parts, pooled], axis=-1)


@kernel
def inception_v3(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    pool_features: Sequence[int] = (32, 64, 64),
    widths: Sequence[int] = (128, 160, 160, 192),
    final_depth: int = 2,
    norm: Callable = batch_norm,
    norm_eps: float = 1e-3,
    count_padding: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A stem of plain convolutions and three stages of Inception blocks.

    Args:
        pool_features: Output widths of the pooling branches in the first stage's blocks.
        widths: Widths of the 7x7 convolutions in the second stage's blocks.
        final_depth: Blocks of the third stage that keep its resolution.
        count_padding: Pooling branches count pixels beyond the border as zeros.
    """
    layer = partial(conv_norm_relu, norm=partial(norm, eps=norm_eps))
    average = partial(average_pool, count_padding=count_padding)
    x = layer(scope["Conv2d_1a_3x3"], x, 32, 3, stride=2, padding=0)
    x = layer(scope["Conv2d_2a_3x3"], x, 32, 3, padding=0)
    x = layer(scope["Conv2d_2b_3x3"], x, 64, 3)
    scope.capture("stage_0", x)
    x = layer(scope["Conv2d_3b_1x1"], max_pool(x), 80)
    x = layer(scope["Conv2d_4a_3x3"], x, 192, 3, padding=0)
    scope.capture("stage_1", x)
    x = max_pool(x)

    for name, features in zip("bcd", pool_features):
        x = scope[f"Mixed_5{name}"].call(block_a, x, features, layer=layer, average=average)
    scope.capture("stage_2", x)
    x = scope["Mixed_6a"].call(block_b, x, layer=layer)
    for name, width in zip("bcde", widths):
        x = scope[f"Mixed_6{name}"].call(block_c, x, width, layer=layer, average=average)
    scope.capture("stage_3", x)
    x = scope["Mixed_7a"].call(block_d, x, layer=layer)
    for name in "bcdefgh"[:final_depth]:
        x = scope[f"Mixed_7{name}"].call(block_e, x, layer=layer, average=average)
    scope.capture("stage_4", x)
    return classifier_head(scope["fc"], x, n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {"inception_v3": {"input_size": 299}}

FAMILY = Family(
    inception_v3,
    "fc",
    VARIANTS,
    timm=Timm(("inception_v3",)),
    # Checkpoints also contain the auxiliary classifier.
    older_names=(OlderNames(r"^AuxLogits\.", ((r"^AuxLogits\.", None),)),),
    tiny=("inception_v3", {"input_size": 107, "pool_features": (32,), "widths": (32,), "final_depth": 1}),
)
