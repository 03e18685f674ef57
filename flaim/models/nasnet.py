"""NASNet-A: cells of separable convolutions and poolings, found by a search; each takes the last two cells' outputs.

Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition" (2018), figure 4. The reference
implementation is timm's `nasnet.py`. The mobile network's weights are Keras', which pads max-poolings with zeros.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, kernel, ops, relu

norm = partial(batch_norm, eps=1e-3)
Maps = tuple[Float[Array, "b _ _ _"], ...]  # the last output and, except for the first cell, the one before it


def _pads(x: Array, window: int, stride: int) -> tuple:
    return ops.same_padding((x.shape[1], x.shape[2]), (window, window), (stride, stride))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 2."""
    return ops.max_pool(x, (3, 3), (2, 2), _pads(x, 3, 2))


def zero_padded_max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 2, padded with zeros."""
    return ops.max_pool(jnp.pad(x, ((0, 0), *_pads(x, 3, 2), (0, 0))), (3, 3), (2, 2))


def avg_pool(x: Float[Array, "b h w c"], stride: int = 1) -> Float[Array, "b h2 w2 c"]:
    """3x3 average pooling; the padding's zeros only count if the map is halved."""
    return ops.avg_pool(x, (3, 3), (stride, stride), _pads(x, 3, stride), count_padding=stride > 1)


@kernel
def separable_conv(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, kernel_size: int, stride: int = 1
) -> Float[Array, "b h2 w2 f"]:
    """Depthwise and 1x1 convolution, with nothing in between."""
    options: dict = dict(kernel_size=kernel_size, stride=stride, padding="same", groups=x.shape[-1], bias=False)
    x = conv(scope["depthwise_conv2d"], x, x.shape[-1], **options)
    return conv(scope["pointwise_conv2d"], x, features, kernel_size=1, bias=False)


@kernel
def separable(
    scope: Scope, x: Float[Array, "b h w c"], features: int, kernel_size: int, *, stride: int = 1
) -> Float[Array, "b h2 w2 f"]:
    """Activation, separable convolution and norm, twice; the first one strides."""
    for i in (1, 2):
        options = dict(kernel_size=kernel_size, stride=stride if i == 1 else 1)
        x = separable_conv(scope[f"separable_{i}"], relu(x), features, **options)
        x = norm(scope[f"bn_sep_{i}"], x)
    return x


@kernel
def act_conv_norm(scope: Scope, x: Float[Array, "b h w c"], features: int) -> Float[Array, "b h w f"]:
    """Activation, 1x1 convolution (`conv`), norm (`bn`)."""
    return norm(scope["bn"], conv(scope["conv"], relu(x), features, kernel_size=1, bias=False))


def halve(scope: Scope, x: Float[Array, "b h w c"], features: int) -> Float[Array, "b h2 w2 f"]:
    """Two 1x1 convolutions side by side, one over even and one over odd rows and columns; `scope` is the cell's."""
    x = relu(x)
    shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
    halves = [
        conv(scope[path]["conv"], ops.subsample(y, (2, 2)), features // 2, kernel_size=1, bias=False)
        for path, y in (("path_1", x), ("path_2", shifted))
    ]
    return norm(scope["final_path_bn"], jnp.concatenate(halves, -1))


def previous(scope: Scope, maps: Maps, features: int) -> Array:
    """The output before the last, converted to the last one's resolution; the last output if it is the only one."""
    x, y = maps[0], maps[-1]
    if len(maps) == 1:
        return x
    if y.shape[1:3] != x.shape[1:3]:
        return halve(scope, y, features)
    return act_conv_norm(scope["conv_prev_1x1"], y, features)


@kernel
def normal_cell(scope: Scope, maps: Maps, features: int) -> Float[Array, "b h w f"]:
    """The cell that keeps the resolution; its output is six times `features` wide."""
    p, h = previous(scope, maps, features), act_conv_norm(scope["conv_1x1"], maps[0], features)

    def branch(name: str, x: Array, kernel_size: int) -> Array:
        return separable(scope[f"comb_iter_{name}"], x, features, kernel_size)

    outputs = [
        p,
        branch("0_left", h, 5) + branch("0_right", p, 3),
        branch("1_left", p, 5) + branch("1_right", p, 3),
        avg_pool(h) + p,
        2 * avg_pool(p),
        branch("4_left", h, 3) + h,
    ]
    return jnp.concatenate(outputs, -1)


@kernel
def reduction_cell(scope: Scope, maps: Maps, features: int, *, pool: Callable = max_pool) -> Float[Array, "b h2 w2 f"]:
    """The cell that halves the resolution; its output is four times `features` wide."""
    p, h = previous(scope, maps, features), act_conv_norm(scope["conv_1x1"], maps[0], features)

    def branch(name: str, x: Array, kernel_size: int, stride: int = 2) -> Array:
        return separable(scope[f"comb_iter_{name}"], x, features, kernel_size, stride=stride)

    first = branch("0_left", h, 5) + branch("0_right", p, 7)
    second = pool(h) + branch("1_right", p, 7)
    third = avg_pool(h, 2) + branch("2_right", p, 5)
    return jnp.concatenate([second, third, avg_pool(first) + second, branch("4_left", first, 3, 1) + pool(h)], -1)


@kernel
def nasnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depth: int,
    features: int,
    stem_features: int,
    skip_reduction: bool,
    pool: Callable = max_pool,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A convolution, two reduction cells, three stages of `depth` normal cells with reduction cells between.

    `stage_i` is activated, as timm's feature maps are.

    Args:
        features: Output width.
        skip_reduction: The second input of the cell after a reduction cell is the second input of the reduction cell,
            not its first.
        pool: The reduction cells' max-pooling.
    """
    width = features // 24
    x = conv(scope["conv0"]["conv"], x, stem_features, kernel_size=3, stride=2, padding=0, bias=False)
    x = norm(scope["conv0"]["bn"], x)
    scope.capture("stage_0", x)
    maps: Maps = (x,)
    for i in range(2):
        maps = scope[f"cell_stem_{i}"].call(reduction_cell, maps, width * 2**i // 4, pool=pool), maps[0]
        if i == 0:
            scope.capture("stage_1", relu(maps[0]))

    for stage in range(3):
        width_now = width * 2**stage
        if stage > 0:
            x = scope[f"reduction_cell_{stage - 1}"].call(reduction_cell, maps, width_now, pool=pool)
            maps = x, maps[1 if skip_reduction else 0]
        for i in range(depth):
            maps = scope[f"cell_{stage * depth + i}"].call(normal_cell, maps, width_now), maps[0]
        scope.capture(f"stage_{stage + 2}", relu(maps[0]))
    return classifier_head(scope["last_linear"], relu(maps[0]), n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "nasnetalarge": {"depth": 6, "features": 4032, "stem_features": 96, "skip_reduction": True, "input_size": 331},
    "nasnetamobile": {
        "depth": 4,
        "features": 1056,
        "stem_features": 32,
        "skip_reduction": False,
        "pool": zero_padded_max_pool,
    },
}

FAMILY = Family(
    nasnet,
    "last_linear",
    VARIANTS,
    choices={"max_pool": max_pool, "zero_padded_max_pool": zero_padded_max_pool},
    timm=Timm(("nasnet",)),
    tiny=("nasnetalarge", {"input_size": 64, "depth": 1, "features": 384, "stem_features": 8}),
)
