"""Padded images, and shifted views of them: the pixels that each position of a kernel or a pooling window meets."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Sizes = tuple[Any, Any]  # height and width, whole numbers or symbolic ones
Pads = tuple[Sizes, Sizes]


def pad(x: Float[Array, "b h w c"], padding: Pads, value: float = 0) -> Float[Array, "b h2 w2 c"]:
    """Images with `value` around them, in pixels ((top, bottom), (left, right)); negative numbers crop."""
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)])


def every(x: Float[Array, "b h w c"], stride: Pair) -> Float[Array, "b h2 w2 c"]:
    """Every so many rows and columns, the first included; symbolic sizes come out as those of a convolution do."""
    return x if stride == (1, 1) else lax.slice(x, (0, 0, 0, 0), x.shape, (1, *stride, 1))


def pad_rows(x: Float[Array, "b h w c"], padding: Pads) -> Float[Array, "b h2 w2 c"]:
    """`pad` with zeros, of whole rows: the channels of a row's pixels stand side by side, as one axis.

    For images that are in memory: XLA on a CPU then compiles and runs it faster. Where padding is fused with what
    computes the image, a norm say, it is slower.
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
    """For each position (row, column) of a kernel, the pixels of padded images that it meets, `size` of them."""
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (size[0] - 1) * stride[0] + 1, left + (size[1] - 1) * stride[1] + 1
            yield i, j, x[:, top : bottom : stride[0], left : right : stride[1]]
