"""Padded images, and the pixels that each position of a kernel or a pooling window meets in them."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def padded(x, padding, value: float = 0):
    """Channels-last images with `value` around them; negative numbers cut off as many pixels."""
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])


def taps(x, kernel_size: Pair, *, stride: Pair, dilation: Pair, size: Pair) -> Iterator[tuple[int, int, jax.Array]]:
    """For each kernel position, in rows, the pixels that it meets: views of the padded image `x`, `size` of them."""
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (size[0] - 1) * stride[0] + 1, left + (size[1] - 1) * stride[1] + 1
            yield i, j, x[:, top : bottom : stride[0], left : right : stride[1]]
