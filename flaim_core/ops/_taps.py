"""Padded images, and the pixels that each position of a kernel or a pooling window meets in them."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def padded(x, padding, value: float = 0, *, stored: bool = False):
    """Channels-last images with `value` around them; negative numbers cut off as many pixels.

    Rows of images that are in memory, and not something that XLA would compute in the same loop, are padded as a whole,
    their pixels' channels side by side: XLA on a CPU takes 30 instead of 100 to 170 ms to compile that, and two thirds
    of the time to run it. With a norm in the same loop it takes longer: EfficientNet-B0 as a whole by a fifth.
    """
    batch, height, width, channels = x.shape
    (top, bottom), (left, right) = padding
    around = jnp.asarray(value, x.dtype)
    if not stored:
        return lax.pad(x, around, [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    rows = x.reshape(batch, height, width * channels)
    rows = lax.pad(rows, around, [(0, 0, 0), (top, bottom, 0), (left * channels, right * channels, 0)])
    return rows.reshape(batch, height + top + bottom, width + left + right, channels)


def taps(x, kernel_size: Pair, *, stride: Pair, dilation: Pair, size: Pair) -> Iterator[tuple[int, int, jax.Array]]:
    """For each kernel position, in rows, the pixels that it meets: views of the padded image `x`, `size` of them."""
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (size[0] - 1) * stride[0] + 1, left + (size[1] - 1) * stride[1] + 1
            yield i, j, x[:, top : bottom : stride[0], left : right : stride[1]]
