"""Hybrids: convolutional networks whose feature map, in the place of the image, is cut into patches.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.1, and Steiner et al., "How to train your ViT?"
(2021): ResNets with group norm, standardised convolutions and TensorFlow's padding; a norm follows each convolution.
timm's own have a ResNet-D, and MobileCLIP's has a stem of three convolutions: Vasu et al., "MobileCLIP" (2024).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxtyping import Array, Float

from flaim_core import Scope, batch_norm, conv, gelu, group_norm, kernel, ops, patch_embed, relu, standardised_conv

Map = Float[Array, "b h w c"]

_same_conv = partial(standardised_conv, padding="same")


@kernel
def hybrid_embed(
    scope: Scope, x: Map, dim: int, *, backbone: Callable, project: bool = True, **patches: Any
) -> Float[Array, "b h2 w2 d"]:
    """`patch_embed` of the feature map of `backbone`, a kernel `(scope, x)`; `patches` are its options.

    Without `project` each position of the map is a token, and its width must be `dim`.
    """
    x = backbone(scope["backbone"], x)
    if project:
        return patch_embed(scope, x, dim, **patches)
    if x.shape[-1] != dim:
        raise ValueError(f"{'/'.join(scope.path)}: the backbone's map has width {x.shape[-1]}, the tokens {dim}")
    return x


@kernel
def conv_stem(
    scope: Scope, x: Map, *, widths: Sequence[int] = (192, 192, 768), sides: Sequence[int] = (4, 2, 2)
) -> Float[Array, "b h2 w2 f"]:
    """Convolutions of patches whose sides are `sides`; norm and GELU follow all but the last."""
    *inner, last = (dict[str, Any](features=width, kernel_size=side, stride=side) for width, side in zip(widths, sides))
    for i, options in enumerate(inner):
        x = conv(scope[i]["conv"], x, padding=0, bias=False, **options)
        x = gelu(batch_norm(scope[i]["bn"], x))
    return conv(scope[len(inner)]["conv"], x, padding=0, **last)


@kernel
def standardised_stem(scope: Scope, x: Map, *, width: int = 64) -> Float[Array, "b h2 w2 f"]:
    """A strided 7x7 convolution and 3x3 max-pooling."""
    x = relu(group_norm(scope["norm"], _same_conv(scope["conv"], x, width, kernel_size=7, stride=2)))
    return ops.max_pool(x, (3, 3), (2, 2), ops.same_padding((x.shape[1], x.shape[2]), (3, 3), (2, 2)))


@kernel
def bottleneck(
    scope: Scope,
    x: Map,
    features: int,
    *,
    stride: int,
    convolution: Callable,
    norm: Callable,
    norms: str,
    projection: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """Residual block: 1x1, 3x3 and 1x1 convolutions, after each a norm at the path `norms` and its number.

    `projection`, where given, makes the shortcut (path `downsample`).
    """
    options = dict(kernel_size=1, bias=False)
    y = relu(norm(scope[f"{norms}1"], convolution(scope["conv1"], x, features // 4, **options)))
    y = convolution(scope["conv2"], y, features // 4, kernel_size=3, stride=stride, bias=False)
    y = relu(norm(scope[f"{norms}2"], y))
    y = norm(scope[f"{norms}3"], convolution(scope["conv3"], y, features, **options))
    return relu(y + (x if projection is None else projection(scope["downsample"], x, features, stride=stride)))


@kernel
def strided_shortcut(scope: Scope, x: Map, features: int, *, stride: int) -> Float[Array, "b h2 w2 f"]:
    """A strided 1x1 convolution."""
    return group_norm(scope["norm"], _same_conv(scope["conv"], x, features, kernel_size=1, stride=stride))


@kernel
def averaged_shortcut(scope: Scope, x: Map, features: int, *, stride: int) -> Float[Array, "b h2 w2 f"]:
    """Average pooling and a 1x1 convolution."""
    if stride > 1:
        x = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False)
    return batch_norm(scope[2], conv(scope[1], x, features, kernel_size=1, bias=False))


def _stages(
    nodes: Sequence[Scope], x: Map, depths: Sequence[int], width: int, block: Callable, shortcut: Callable
) -> Array:
    """Stages of blocks, a node each; each but the first halves the map, and each doubles the width."""
    for i, (node, depth) in enumerate(zip(nodes, depths)):
        for j in range(depth):
            stride, projection = (2 if i else 1, shortcut) if j == 0 else (1, None)
            x = node[j].call(block, x, 4 * width * 2**i, stride=stride, projection=projection)
    return x


_STANDARDISED = partial(bottleneck, convolution=_same_conv, norm=group_norm, norms="norm")
_BATCH_NORMED = partial(bottleneck, convolution=conv, norm=batch_norm, norms="bn")


@kernel
def standardised_resnet(scope: Scope, x: Map, *, depths: Sequence[int], width: int = 64) -> Float[Array, "b h2 w2 f"]:
    """ResNet with group norm and standardised convolutions; `width` is the stem's, the stages' are its multiples."""
    x = standardised_stem(scope["stem"], x, width=width)
    nodes = [scope["stages"][i]["blocks"] for i in range(len(depths))]
    return _stages(nodes, x, depths, width, _STANDARDISED, strided_shortcut)


@kernel
def resnet_d(scope: Scope, x: Map, *, depths: Sequence[int], width: int = 64) -> Float[Array, "b h2 w2 f"]:
    """ResNet-D with batch norm: a stem of three 3x3 convolutions, shortcuts that pool. He et al. (2018)."""
    stem = scope["conv1"]
    for i, (features, stride) in enumerate(((width // 2, 2), (width // 2, 1))):
        x = conv(stem[3 * i], x, features, kernel_size=3, stride=stride, bias=False)
        x = relu(batch_norm(stem[3 * i + 1], x))
    x = relu(batch_norm(scope["bn1"], conv(stem[6], x, width, kernel_size=3, bias=False)))
    x = ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    nodes = [scope[f"layer{i}"] for i in range(1, len(depths) + 1)]
    return _stages(nodes, x, depths, width, _BATCH_NORMED, averaged_shortcut)
