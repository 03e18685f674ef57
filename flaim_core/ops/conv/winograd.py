"""Convolution of 3x3 kernels by Winograd's minimal filtering F(2x2, 3x3).

A tile of 2x2 outputs takes 16 products instead of 36, between sums of inputs and sums of weights: matrix products over
all tiles. Its rounding errors are no larger than those of XLA's convolution.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, sections 4.1 and 4.3.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flaim_core.microbatch import fewest_parts, in_parts
from flaim_core.ops._views import Pads, pad, pad_rows
from flaim_core.ops.conv._window import Shape, Window

# The transformation of kernels along one axis (G in the paper). Kernels are transformed by small matrix products: sums
# of slices take longer to compile and no less to run.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
# Bytes of transformed tiles that one image may take, and that are made at once where there are several images.
_IMAGE, _AT_ONCE, _AT_ONCE_FOR_KERNEL = 24 * 2**20, 28 * 2**20, 16 * 2**20
# Below so many tiles the kernel's transformation takes longer than it saves; below so many channels, of input and
# output each and together, the tiles'; below so many products for each of a tile's pixels there is nothing to save.
_FEW_TILES, _FEW_CHANNELS, _FEW_TOGETHER, _FEW_PRODUCTS = 150, 32, 128, 5_000_000


def serves(x_shape: Shape, kernel_shape: Shape, padding: Pads, dtype: jnp.dtype) -> bool:
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


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The convolution, without stride, dilation and groups."""
    padding = window.padding
    weights = kernel.reshape(9, -1)
    kernels = [(np.kron(_KERNEL, column) @ weights).reshape(4, *kernel.shape[2:]) for column in _KERNEL]

    def of_some(x):
        tiles = _input_tiles(x, padding, by_rows=parts > 1)
        products = [(t.reshape(4, -1, t.shape[-1]) @ k).reshape(*t.shape[:-1], -1) for t, k in zip(tiles, kernels)]
        columns = _to_output(products)
        rows = zip(*(_to_output(column) for column in columns))
        y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
        return y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], -1)

    height, width = _size(x.shape, padding)
    parts = _parts(x.shape, kernel.shape[3], padding, _AT_ONCE)
    y = of_some(x) if parts == 1 else in_parts(of_some, x, parts)
    return y[:, :height, :width]


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, padding: Pads
) -> Float[Array, "3 3 c f"]:
    """The gradient for the kernel."""

    def of_some(x, cotangent):
        tiles, others = jnp.stack(_input_tiles(x, padding, by_rows=True)), jnp.stack(_output_tiles(cotangent))
        rows = tiles.reshape(16, -1, channels), others.reshape(16, -1, features)
        return lax.dot_general(*rows, (((1,), (1,)), ((0,), (0,)))).reshape(4, 4, channels, features)

    channels, features = x.shape[-1], cotangent.shape[-1]
    parts = _parts(x.shape, features, padding, _AT_ONCE_FOR_KERNEL)
    if parts == 1:
        products = of_some(x, cotangent)
    else:
        stacked = [a.reshape(parts, -1, *a.shape[1:]) for a in (x, cotangent)]
        start = jnp.zeros((4, 4, channels, features), x.dtype)
        products, _ = lax.scan(lambda total, part: (total + of_some(*part), None), start, stacked)
    by_columns = np.einsum("ia,jb->abji", _KERNEL, _KERNEL).reshape(9, 16)
    return (by_columns @ products.reshape(16, -1)).reshape(3, 3, channels, features)


# The transformations of input tiles and of outputs along one axis (B and A in the paper), and the latter's transpose.


def _of_input(d: Array | Sequence[Array]) -> tuple[Array, ...]:
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _to_output(m: Array | Sequence[Array]) -> tuple[Array, ...]:
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _of_output(y: Array | Sequence[Array]) -> tuple[Array, ...]:
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]


def _in_columns(transform: Callable, grid: Array) -> tuple[Array, ...]:
    """A transformation along the first two axes of an array: for each column of the result, its rows."""
    rows = jnp.stack(transform(grid))
    return transform(rows.swapaxes(0, 1))


def _input_tiles(x: Array, padding: Pads, *, by_rows: bool) -> tuple[Array, ...]:
    """Tiles of 4x4 pixels, two apart, transformed: for each of their columns, `(4, b, rows, columns, c)`."""
    rows, columns = _tiles(x.shape, padding)
    pads = [(low, 2 * n + 2 - size - low) for (low, _), n, size in zip(padding, (rows, columns), x.shape[1:3])]
    vertical, horizontal = pads
    x = (pad_rows if by_rows else pad)(x, (vertical, horizontal))
    x = x.reshape(x.shape[0], rows + 1, 2, *x.shape[2:])
    x = jnp.stack(_of_input([x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    x = x.reshape(*x.shape[:3], columns + 1, 2, -1)
    return _of_input([x[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)])


def _output_tiles(y: Array) -> tuple[Array, ...]:
    """Tiles of 2x2 outputs, transformed: for each of their columns, `(4, b, rows, columns, f)`."""
    batch, height, width, features = y.shape
    y = jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    y = y.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, features)
    return _in_columns(_of_output, y.transpose(2, 4, 0, 1, 3, 5))


def _size(x_shape: Shape, padding: Pads) -> tuple[int, ...]:
    """The output's height and width."""
    return tuple(n + low + high - 2 for n, (low, high) in zip(x_shape[1:3], padding))


def _tiles(x_shape: Shape, padding: Pads) -> tuple[int, ...]:
    """The tiles along the output's height and width."""
    return tuple((n + 1) // 2 for n in _size(x_shape, padding))


def _bytes_of_image(x_shape: Shape, features: int, padding: Pads) -> int:
    rows, columns = _tiles(x_shape, padding)
    return rows * columns * 16 * (x_shape[3] + features) * 4


def _parts(x_shape: Shape, features: int, padding: Pads, at_once: int) -> int:
    """The parts of a batch that are transformed one after the other, each of at most `at_once` bytes, or one image."""
    return fewest_parts(x_shape[0], max(1, at_once // _bytes_of_image(x_shape, features, padding)))
