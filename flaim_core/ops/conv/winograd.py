"""Convolution of 3x3 kernels by Winograd's minimal filtering F(2x2, 3x3).

It computes 2x2 outputs from a tile of 4x4 inputs with 16 multiplications per pair of channels instead of 36. In the
paper's notation, for a tile `d`, a kernel `g` and the tile's output `y`:

    y = A^T [(G g G^T) * (B^T d B)] A            16 matrix products (tiles, c) @ (c, f), one for each position in 4x4

Rounding errors are no larger than those of XLA's convolution.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, sections 4.1 and 4.3.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flaim_core.microbatch import map_microbatches, num_microbatches
from flaim_core.ops._views import Pads, pad, pad_rows
from flaim_core.ops.conv._window import Shape, Window

# G, the transformation of kernels along one axis. It is applied as a small matrix product, which compiles faster than
# sums of slices and runs as fast.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
# Largest size in bytes of the transformed tiles of one image.
_MAX_IMAGE = 24 * 2**20
# The same for a microbatch, in the forward pass and in the kernel gradient.
_MAX_MICROBATCH, _MAX_GRADIENT_MICROBATCH = 28 * 2**20, 16 * 2**20
# Fewer tiles in the batch do not repay the transformation of the kernel.
_MIN_TILES = 150
# Fewer channels, of input or output and of both together, do not repay the transformation of the tiles.
_MIN_CHANNELS, _MIN_CHANNELS_TOGETHER = 32, 128
# Smaller matrix products (tiles * c * f) do not repay either.
_MIN_PRODUCTS = 5_000_000


def serves(x_shape: Shape, kernel_shape: Shape, padding: Pads, dtype: jnp.dtype) -> bool:
    """Whether this is faster than XLA's convolution; for stride, dilation and groups of 1."""
    channels, features = kernel_shape[2:]
    tiles = x_shape[0] * math.prod(_tiles(x_shape, padding))
    return (
        kernel_shape[:2] == (3, 3)
        and dtype == jnp.float32
        and min(channels, features) >= _MIN_CHANNELS
        and channels + features >= _MIN_CHANNELS_TOGETHER
        and tiles >= _MIN_TILES
        and tiles * channels * features >= _MIN_PRODUCTS
        and _bytes_of_image(x_shape, features, padding) <= _MAX_IMAGE
    )


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The convolution; stride, dilation and groups are 1."""
    padding = window.padding
    weights = kernel.reshape(9, -1)
    kernels = [(np.kron(_KERNEL, column) @ weights).reshape(4, *kernel.shape[2:]) for column in _KERNEL]

    def of_microbatch(x):
        tiles = _input_tiles(x, padding, by_rows=n > 1)
        products = [(t.reshape(4, -1, t.shape[-1]) @ k).reshape(*t.shape[:-1], -1) for t, k in zip(tiles, kernels)]
        columns = _to_output(products)
        rows = zip(*(_to_output(column) for column in columns))
        y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
        return y.reshape(y.shape[0], 2 * y.shape[1], 2 * y.shape[3], -1)

    height, width = _size(x.shape, padding)
    n = _num_microbatches(x.shape, kernel.shape[3], padding, _MAX_MICROBATCH)
    y = of_microbatch(x) if n == 1 else map_microbatches(of_microbatch, x, n)
    return y[:, :height, :width]


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, padding: Pads
) -> Float[Array, "3 3 c f"]:
    """The gradient with respect to the kernel: G^T [(B^T d B) * (A dy A^T)] G, summed over tiles."""

    def of_microbatch(x, cotangent):
        inputs, slopes = jnp.stack(_input_tiles(x, padding, by_rows=True)), jnp.stack(_output_tiles(cotangent))
        rows = inputs.reshape(16, -1, channels), slopes.reshape(16, -1, features)
        return lax.dot_general(*rows, (((1,), (1,)), ((0,), (0,)))).reshape(4, 4, channels, features)

    channels, features = x.shape[-1], cotangent.shape[-1]
    n = _num_microbatches(x.shape, features, padding, _MAX_GRADIENT_MICROBATCH)
    if n == 1:
        products = of_microbatch(x, cotangent)
    else:
        stacked = [a.reshape(n, -1, *a.shape[1:]) for a in (x, cotangent)]
        start = jnp.zeros((4, 4, channels, features), x.dtype)
        products, _ = lax.scan(lambda total, microbatch: (total + of_microbatch(*microbatch), None), start, stacked)
    by_columns = np.einsum("ia,jb->abji", _KERNEL, _KERNEL).reshape(9, 16)
    return (by_columns @ products.reshape(16, -1)).reshape(3, 3, channels, features)


# Transformations along one axis.


def _transform_input(d: Array | Sequence[Array]) -> tuple[Array, ...]:
    """B^T: 4 inputs to 4 transformed ones."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _to_output(m: Array | Sequence[Array]) -> tuple[Array, ...]:
    """A^T: 4 products to 2 outputs."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _transform_cotangent(y: Array | Sequence[Array]) -> tuple[Array, ...]:
    """A, the transpose of `_to_output`: 2 cotangents to 4."""
    return y[0], y[0] + y[1], y[0] - y[1], -y[1]


def _in_columns(transform: Callable, grid: Array) -> tuple[Array, ...]:
    """`transform` along the first two axes (row, column, ...) of an array: a tuple of columns (rows, ...)."""
    rows = jnp.stack(transform(grid))
    return transform(rows.swapaxes(0, 1))


def _input_tiles(x: Array, padding: Pads, *, by_rows: bool) -> tuple[Array, ...]:
    """The transformed tiles of 4x4 pixels, two pixels apart: for each column of a tile, (4, b, rows, columns, c)."""
    rows, columns = _tiles(x.shape, padding)
    pads = [(low, 2 * n + 2 - size - low) for (low, _), n, size in zip(padding, (rows, columns), x.shape[1:3])]
    vertical, horizontal = pads
    x = (pad_rows if by_rows else pad)(x, (vertical, horizontal))
    x = x.reshape(x.shape[0], rows + 1, 2, *x.shape[2:])
    x = jnp.stack(_transform_input([x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]))
    x = x.reshape(*x.shape[:3], columns + 1, 2, -1)
    return _transform_input([x[:, :, :, j // 2 : j // 2 + columns, j % 2] for j in range(4)])


def _output_tiles(y: Array) -> tuple[Array, ...]:
    """The transformed tiles of 2x2 cotangents: for each column of a tile, (4, b, rows, columns, f)."""
    batch, height, width, features = y.shape
    y = jnp.pad(y, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    y = y.reshape(batch, (height + 1) // 2, 2, (width + 1) // 2, 2, features)
    return _in_columns(_transform_cotangent, y.transpose(2, 4, 0, 1, 3, 5))


def _size(x_shape: Shape, padding: Pads) -> tuple[int, ...]:
    """The output's height and width."""
    return tuple(n + low + high - 2 for n, (low, high) in zip(x_shape[1:3], padding))


def _tiles(x_shape: Shape, padding: Pads) -> tuple[int, ...]:
    """The number of tiles along the output's height and width."""
    return tuple((n + 1) // 2 for n in _size(x_shape, padding))


def _bytes_of_image(x_shape: Shape, features: int, padding: Pads) -> int:
    """The size of an image's transformed tiles, of inputs and outputs, in float32."""
    rows, columns = _tiles(x_shape, padding)
    return rows * columns * 16 * (x_shape[3] + features) * 4


def _num_microbatches(x_shape: Shape, features: int, padding: Pads, max_bytes: int) -> int:
    """The number of microbatches whose transformed tiles take at most `max_bytes` each (or which are one image)."""
    return num_microbatches(x_shape[0], max(1, max_bytes // _bytes_of_image(x_shape, features, padding)))
