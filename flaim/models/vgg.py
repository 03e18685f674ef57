"""VGG: stacks of 3x3 convolutions between max-poolings, and two wide layers before the classifier.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014). The reference
implementation is timm's `vgg.py`, whose two wide layers are convolutions, so images can have any size: a feature map
that is smaller than the first one's kernel is pooled up to the kernel's size.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, dropout, kernel, ops, relu
from flaim_core.checks import per_stage


def at_least(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
    """`x` with sides of at least `size`: a shorter side becomes `size` bins, each the mean of what it overlaps."""
    height, width = x.shape[1:3]
    if height < size or width < size:
        return ops.adaptive_avg_pool(x, (max(height, size), max(width, size)))
    return x


@kernel
def wide_layers(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, kernel_size: int, drop_rate: float
) -> Float[Array, "b h2 w2 f"]:
    """`fc1`, a convolution over squares of `kernel_size`, and `fc2`, over single positions."""
    x = relu(conv(scope["fc1"], at_least(x, kernel_size), features, kernel_size=kernel_size, padding=0))
    x = dropout(scope["drop"], x, drop_rate)
    return relu(conv(scope["fc2"], x, features, kernel_size=1))


@kernel
def vgg(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    norm: Callable | None = None,
    head_features: int = 4096,
    head_kernel_size: int = 7,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """One stage for each of `depths`, each ending in 2x2 max-pooling.

    `stage_i`, counted from 0, is a stage's map before its pooling; one more is the output of the last pooling.

    Args:
        depths: Convolutions in each stage.
        norm: Kernel after each convolution, batch norm or None.
        head_features: Width of the two layers before the classifier.
        head_kernel_size: Kernel size of the first of them.
        drop_rate: Dropout rate of the input of the last two layers.
    """
    position = 0  # in timm's list of convolutions, norms, activations and poolings
    for stage, (depth, width) in enumerate(per_stage(depths=depths, widths=widths)):
        for _ in range(depth):
            x = conv(scope["features"][position], x, width, kernel_size=3)
            x = relu(x if norm is None else norm(scope["features"][position + 1], x))
            position += 2 if norm is None else 3
        scope.capture(f"stage_{stage}", x)
        x = ops.max_pool(x, (2, 2), (2, 2))
        position += 1
    scope.capture(f"stage_{len(depths)}", x)
    if n_classes == 0:
        return x
    x = wide_layers(scope["pre_logits"], x, head_features, kernel_size=head_kernel_size, drop_rate=drop_rate)
    return classifier_head(scope["head"]["fc"], x, n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "vgg11": {"depths": (1, 1, 2, 2, 2)},
    "vgg13": {"depths": (2, 2, 2, 2, 2)},
    "vgg16": {"depths": (2, 2, 3, 3, 3)},
    "vgg19": {"depths": (2, 2, 4, 4, 4)},
    "vgg11_bn": {"depths": (1, 1, 2, 2, 2), "norm": batch_norm},
    "vgg13_bn": {"depths": (2, 2, 2, 2, 2), "norm": batch_norm},
    "vgg16_bn": {"depths": (2, 2, 3, 3, 3), "norm": batch_norm},
    "vgg19_bn": {"depths": (2, 2, 4, 4, 4), "norm": batch_norm},
}

FAMILY = Family(
    vgg,
    "head/fc",
    VARIANTS,
    timm=Timm(("vgg",)),
    tiny=("vgg11_bn", {"input_size": 64, "depths": (1, 2), "widths": (8, 16), "head_features": 32}),
)
