import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._conv import conv
from flaim_core.leaf import Init
from flaim_core.scope import Scope, kernel


@kernel
def mixed_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int | Sequence[int],
    stride: int = 1,
    padding: int | tuple | str | None = None,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Init = initializers.he_normal_fan_out,
) -> Float[Array, "b h2 w2 f"]:
    """Convolutions of several kernel sizes in parallel, each on its own part of the channels.

    Paths: `0`, `1`, ..., one for each kernel size; a single kernel size is a plain `conv`. The parts have equal widths,
    the first also takes the remainder. `groups` is 1 (each part a dense convolution) or the input's width (each part
    a depthwise one). Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels" (2019).
    """
    options: dict = dict(stride=stride, padding=padding, bias=bias, kernel_init=kernel_init)
    if isinstance(kernel_size, int):
        return conv(scope, x, features, kernel_size=kernel_size, groups=groups, **options)
    if groups not in (1, x.shape[-1]):
        raise ValueError(f"{'/'.join(scope.path)}: {groups} groups, expected 1 or the input's width {x.shape[-1]}")
    widths, outputs = _shares(x.shape[-1], len(kernel_size)), _shares(features, len(kernel_size))
    parts = jnp.split(x, list(itertools.accumulate(widths))[:-1], axis=-1)
    convolved = [
        conv(scope[i], part, output, kernel_size=size, groups=1 if groups == 1 else part.shape[-1], **options)
        for i, (part, output, size) in enumerate(zip(parts, outputs, kernel_size))
    ]
    return jnp.concatenate(convolved, axis=-1)


def _shares(total: int, parts: int) -> list[int]:
    """The widths of `parts` parts of `total` channels."""
    return [total // parts + total % parts, *[total // parts] * (parts - 1)]
