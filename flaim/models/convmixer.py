"""ConvMixer: depthwise and pointwise convolutions on a map of patches, which keeps its size.

Trockman and Kolter, "Patches Are All You Need?" (2022). The reference implementation is timm's `convmixer.py`. In the
blocks, the activation comes before the norm.
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, gelu, initializers, kernel, relu

convolution = partial(conv, kernel_init=initializers.lecun_normal)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    kernel_size: int = 9,
    norm: Callable = batch_norm,
    act: Callable = gelu,
) -> Float[Array, "b h w c"]:
    """A depthwise convolution plus its input (paths 0/fn/0 and 0/fn/2), then a pointwise one (paths 1 and 3)."""
    dim, mix = x.shape[-1], scope[0]["fn"]
    y = convolution(mix[0], x, dim, kernel_size=kernel_size, groups=dim, padding="same")
    x = x + norm(mix[2], act(y))
    return norm(scope[3], act(convolution(scope[1], x, dim, kernel_size=1)))


@kernel
def convmixer(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    dim: int,
    depth: int,
    kernel_size: int = 9,
    patch_size: int = 7,
    norm: Callable = batch_norm,
    act: Callable = gelu,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A convolution over patches, equal blocks, pooling and a classifier.

    Pixels on the right and at the bottom that do not fill a patch are ignored.

    Args:
        kernel_size: Side of the depthwise kernels.
        drop_rate: Dropout rate of the classifier's input.
    """
    stem = scope["stem"]
    x = convolution(stem[0], x, dim, kernel_size=patch_size, stride=patch_size, padding=0)
    x = norm(stem[2], act(x))
    scope.capture("block_0", x)
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
        kernel_size=kernel_size,
        norm=norm,
        act=act,
    )
    return classifier_head(scope["head"], x, n_classes, drop_rate=drop_rate)


VARIANTS: dict[str, dict] = {
    "convmixer_768_32": {"dim": 768, "depth": 32, "kernel_size": 7, "act": relu},
    "convmixer_1024_20_ks9_p14": {"dim": 1024, "depth": 20, "patch_size": 14},
    "convmixer_1536_20": {"dim": 1536, "depth": 20},
}

FAMILY = Family(
    convmixer,
    "head",
    VARIANTS,
    timm=Timm(
        ("convmixer",),
        {name: (name, None) for name in ("dim", "depth", "kernel_size", "patch_size")},
    ),
    tiny=("convmixer_768_32", {"input_size": 28, "dim": 8, "depth": 2, "kernel_size": 3}),
)
