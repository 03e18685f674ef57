"""HorNet: a convolutional network whose blocks multiply several mixtures of neighbouring pixels.

Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions" (2022). The reference
implementation is the authors', `hornet.py` of github.com/raoyongming/HorNet; timm has none. The "gf" variants have
filters as large as the map in the last two stages, in the place of 7x7 convolutions; like theirs, these are stretched
in each forward pass if the map has another size than in training.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family
from flaim_core import (
    Scope,
    classifier,
    conv,
    drop_path,
    drop_path_schedule,
    gelu,
    global_local_filter,
    initializers,
    kernel,
    layer_norm,
    layer_scale,
    linear,
    ops,
    recursive_gated_conv,
)
from flaim_core.checks import per_stage

_KERNEL_INIT = initializers.truncated_normal(0.02)

convolution = partial(conv, kernel_init=_KERNEL_INIT, padding=0)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    order: int,
    mix: Callable | None = None,
    mlp_ratio: float = 4,
    layer_scale_init: float = 1e-6,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "b h w c"]:
    """A gated convolution and an inverted bottleneck, both residual, with layer scales `gamma1` and `gamma2`."""
    dim = x.shape[-1]

    def add(x, y, number):
        y = layer_scale(scope, y, init_value=layer_scale_init, leaf=f"gamma{number}")
        return x + drop_path(scope[f"drop_path{number}"], y, drop_path_rate)

    y = layer_norm(scope["norm1"], x)
    x = add(x, recursive_gated_conv(scope["gnconv"], y, order=order, mix=mix, kernel_init=_KERNEL_INIT), 1)
    y = gelu(linear(scope["pwconv1"], layer_norm(scope["norm2"], x), int(mlp_ratio * dim)))
    return add(x, linear(scope["pwconv2"], y, dim), 2)


@kernel
def hornet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depths: Sequence[int] = (2, 3, 18, 2),
    orders: Sequence[int] = (2, 3, 4, 5),
    mixers: Sequence[Callable | None] = (None, None, None, None),
    mlp_ratio: float = 4,
    layer_scale_init: float = 1e-6,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Convolutional network with one stage for each of `depths`; each halves the map and doubles its width.

    Args:
        n_classes: 0 gives the last feature map; the norm comes after the mean over it.
        dim: Width of the first stage.
        orders: Order of each stage's gated convolutions.
        mixers: For each stage, the kernel that mixes neighbouring pixels; None for a depthwise 7x7 convolution.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    options: dict = dict(mlp_ratio=mlp_ratio, layer_scale_init=layer_scale_init)
    rates = drop_path_schedule(drop_path_rate, sum(depths))
    for i, (depth, order, mix) in enumerate(per_stage(depths=depths, orders=orders, mixers=mixers)):
        down = scope["downsample_layers"][i]
        if i == 0:
            x = layer_norm(down[1], convolution(down[0], x, dim, kernel_size=4, stride=4))
            scope.capture("stage_0", x)
        else:
            x = convolution(down[1], layer_norm(down[0], x), 2 * x.shape[-1], kernel_size=2, stride=2)
        each = {"drop_path_rate": rates[sum(depths[:i]) :][:depth]}
        x = scope["stages"][i].repeat(block, x, depth, each=each, order=order, mix=mix, **options)
        scope.capture(f"stage_{i + 1}", x)

    if n_classes == 0:
        return x
    return classifier(scope["head"], layer_norm(scope["norm"], ops.global_avg_pool(x)), n_classes, drop_rate=drop_rate)


def _filters(side: int) -> tuple[Callable | None, ...]:
    """The mixers of a "gf" variant, for images of this side: filters for maps 16 and 32 times smaller."""
    sizes = [(side // reduction, side // reduction // 2 + 1) for reduction in (16, 32)]
    return None, None, *(partial(global_local_filter, size=size) for size in sizes)


VARIANTS: dict[str, dict] = {
    "hornet_tiny_7x7": {"dim": 64},
    "hornet_tiny_gf": {"dim": 64, "mixers": _filters(224)},
    "hornet_small_7x7": {"dim": 96},
    "hornet_small_gf": {"dim": 96, "mixers": _filters(224)},
    "hornet_base_7x7": {"dim": 128},
    "hornet_base_gf": {"dim": 128, "mixers": _filters(224)},
    "hornet_base_gf_img384": {"dim": 128, "mixers": _filters(384), "input_size": 384},
    "hornet_large_7x7": {"dim": 192},
    "hornet_large_gf": {"dim": 192, "mixers": _filters(224)},
    "hornet_large_gf_img384": {"dim": 192, "mixers": _filters(384), "input_size": 384},
}

FAMILY = Family(
    hornet,
    "head",
    VARIANTS,
    tiny=(
        "hornet_tiny_gf",
        {
            "input_size": 32,
            "dim": 8,
            "depths": (1, 1),
            "orders": (2, 3),
            "mixers": (None, partial(global_local_filter, size=(4, 3))),
        },
    ),
)
