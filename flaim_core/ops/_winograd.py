"""Convolution of 3x3 kernels by Winograd's minimal filtering F(2x2, 3x3).

A tile of 2x2 outputs takes 16 products instead of 36, between sums of inputs and sums of weights: matrix products over
all tiles. Its rounding errors are no larger than those of XLA's convolution (against float64, 56x56, 64 channels: 4e-7
of the largest output, 6e-7 of the largest gradient for the kernel; XLA's 9e-7 and 5e-6).

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, sections 4.1 and 4.3.

Measured on 2 cores (float32, jax 0.10.2, batch 8), XLA's convolution and this one, and the gradient for the kernel by
products of patches and this one, in ms: 56x56, 64 channels 11.7 and 7.3, 17.7 and 16.3; 28x28, 128 channels 6.1 and
4.9, 12.3 and 7.9; 14x14, 256 channels 6.3 and 4.3, 10.6 and 5.2. One product of all 16 pixels instead of four takes a
tenth more time, 16 separate ones a tenth less, but twice the time to compile.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from flaim_core.ops._taps import Pads, padded
from flaim_core.parts import fewest_parts, in_parts

# The transformation of kernels along one axis (G in the paper). Kernels are transformed by small matrix products: as
# sums of slices, each shape of kernel took 0.15 s to compile, and no less time to run.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
# Bytes of transformed tiles that one image may take, and that are made at once where there are several images.
_IMAGE, _AT_ONCE, _AT_ONCE_FOR_KERNEL = 24 * 2**20, 28 * 2**20, 16 * 2**20
# Below so many tiles the kernel's transformation takes longer than it saves; below so many channels, of input and
# output each and together, the tiles'; below so many products for each of a tile's pixels there is nothing to save.
_FEW_TILES, _FEW_CHANNELS, _FEW_TOGETHER, _FEW_PRODUCTS = 150, 32, 128, 5_000_000


def serves(x_shape, kernel_shape, padding: Pads, dtype) -> bool:
    """Whether this is the faster way for a convolution without stride, dilation and groups."""
    channels, features = kernel_shape[2:]
    tiles = x_shape[0] * math.prod(_tiles(x_shape, padding))
    return (
        kernel_shape[:2] == (3, 3)
        and dtype == jnp.float32
        and min(channels, features) >= _FEW_CHANNELS
        and channels + features >= _FEW_TOGETHER
        and tiles >= _FEW_TILES
        and tiles * channels * features >= _FEW_PRODUCTS
        and _bytes_of_image(x_shape, features, padding) <= _IMAGE
    )


def convolution(x, kernel, padding: Pads):
    """The convolution of images `(b, h, w, c)` with a kernel `(3, 3, c, f)`."""
    weights = kernel.reshape(9, -1)
    kernels = [(np.kron(_KERNEL, column) @ weights).reshape(4, *kernel.shape[2:]) for column in _KERNEL]

    def of_some(x):
        tiles = _input_tiles(x, padding, stored=pieces > 1)
        products = [(t.reshape(4, -1, t.shape[-1]) @ k).reshape(*t.shape[:-1], -1) for t, k in zip(tiles, kernels)]
        columns = _to_output(products)
        rows = zip(*(_to_output(column) for column in columns))
        y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
        return y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], -1)

    height, width = _size(x.shape, padding)
    pieces = _pieces(x.shape, kernel.shape[3], padding, _AT_ONCE)
    y = of_some(x) if pieces == 1 else in_parts(of_some, x, pieces)
    return y[:, :height, :width]


def kernel_gradient(x, cotangent, padding: Pads):
    """The gradient `(3, 3, c, f)` for the kernel, of images and the cotangent of `convolution`'s result."""

    def of_some(x, cotangent):
        tiles, others = jnp.stack(_input_tiles(x, padding, stored=True)), jnp.stack(_output_tiles(cotangent))
        rows = tiles.reshape(16, -1, channels), others.reshape(16, -1, features)
        return lax.dot_general(*rows, (((1,), (1,)), ((0,), (0,)))).reshape(4, 4, channels, features)

    channels, features = x.shape[-1], cotangent.shape[-1]
    pieces = _pieces(x.shape, features, padding, _AT_ONCE_FOR_KERNEL)
    if pieces == 1:
        products = of_some(x, cotangent)
    else:
        parts = [a.reshape(pieces, -1, *a.shape[1:]) for a in (x, cotangent)]
        start = jnp.zeros((4, 4, channels, features), x.dtype)
        products, _ = lax.scan(lambda total, part: (total + of_some(*part), None), start, parts)
    by_columns = np.einsum("ia,jb->abji", _KERNEL, _KERNEL).reshape(9, 16)
    return (by_columns @ products.reshape(16, -1)).reshape(3, 3, channels, features)


# The transformations of input tiles and of outputs along one axis (B and A in the paper), and the latter's transpose.


def _of_input(d):
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _to_output(m):
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _of_output(y):
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]


def _in_columns(transform, grid):
    """A transformation along the first two axes of an array: for each column of the result, its rows."""
    rows = jnp.stack(transform(grid))
    return transform(rows.swapaxes(0, 1))


def _input_tiles(x, padding: Pads, *, stored: bool):
    """Tiles of 4x4 pixels, two apart, transformed: for each of their columns, `(4, b, rows, columns, c)`."""
    rows, columns = _tiles(x.shape, padding)
    pads = [(low, 2 * n + 2 - size - low) for (low, _), n, size in zip(padding, (rows, columns), x.shape[1:3])]
    x = padded(x, pads, stored=stored)
    x = x.reshape(x.shape[0], rows + 1, 2, *x.shape[2:])
    x = jnp.stack(_of_input([x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    x = x.reshape(*x.shape[:3], columns + 1, 2, -1)
    return _of_input([x[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)])


def _output_tiles(y):
    """Tiles of 2x2 outputs, transformed: for each of their columns, `(4, b, rows, columns, f)`."""
    batch, height, width, features = y.shape
    y = jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    y = y.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, features)
    return _in_columns(_of_output, y.transpose(2, 4, 0, 1, 3, 5))


def _size(x_shape, padding: Pads):
    """The output's height and width."""
    return tuple(n + low + high - 2 for n, (low, high) in zip(x_shape[1:3], padding))


def _tiles(x_shape, padding: Pads):
    """The tiles along the output's height and width."""
    return tuple((n + 1) // 2 for n in _size(x_shape, padding))


def _bytes_of_image(x_shape, features: int, padding: Pads) -> int:
    rows, columns = _tiles(x_shape, padding)
    return rows * columns * 16 * (x_shape[3] + features) * 4


def _pieces(x_shape, features: int, padding: Pads, at_once: int) -> int:
    """The parts of a batch that are transformed one after the other, each of at most `at_once` bytes, or one image."""
    return fewest_parts(x_shape[0], max(1, at_once // _bytes_of_image(x_shape, features, padding)))
