"""Padding, and shifted views: for a position in a kernel or window, the pixel under it for every output pixel."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Sizes = tuple[Any, Any]  # height and width; int or symbolic
Pads = tuple[Sizes, Sizes]  # ((top, bottom), (left, right)) in pixels


def pad(x: Float[Array, "b h w c"], padding: Pads, value: float = 0) -> Float[Array, "b h2 w2 c"]:
    """Pad images with `value`; negative padding crops."""
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)])


def subsample(x: Float[Array, "b h w c"], stride: Pair) -> Float[Array, "b h2 w2 c"]:
    """`x[:, ::stride[0], ::stride[1]]`, whose symbolic sizes have the same form as those of a strided convolution."""
    return x if stride == (1, 1) else lax.slice(x, (0, 0, 0, 0), x.shape, (1, *stride, 1))


def pad_rows(x: Float[Array, "b h w c"], padding: Pads) -> Float[Array, "b h2 w2 c"]:
    """`pad` with zeros, computed on rows (b, h, w * c).

    XLA for CPUs compiles and runs this faster if the images are already in memory. It is slower where padding would be
    fused with the operation that computes the images, such as a norm.
    """
    batch, height, width, channels = x.shape
    vertical, (left, right) = padding
    rows = x.reshape(batch, height, width * channels)
    sides = (left * channels, right * channels, 0)
    rows = lax.pad(rows, jnp.zeros((), x.dtype), [(0, 0, 0), (*vertical, 0), sides])
    return rows.reshape(batch, height + sum(vertical), width + left + right, channels)


def shifted_views(
    x: Float[Array, "b h w c"], kernel_size: Pair, *, stride: Pair, dilation: Pair, size: Pair
) -> Iterator[tuple[int, int, Float[Array, "b h2 w2 c"]]]:
    """For each position in a kernel, its row, its column and the shifted view of the padded images `x`.

    The view has the pixel under this position for each output pixel; `size` is (h2, w2).
    """
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (size[0] - 1) * stride[0] + 1, left + (size[1] - 1) * stride[1] + 1
            yield i, j, x[:, top : bottom : stride[0], left : right : stride[1]]
