"""Depthwise convolution as a primitive of its own, bilinear in image and kernel, lowered by platform.

On a CPU it is a sum, over kernel positions, of shifted images times one number a channel, which XLA fuses into one pass
over the image; elsewhere XLA's convolution. Left to itself, automatic differentiation would keep every shifted image:
the training step of ConvNeXt-T at batch 8 took 5.5 GB. The derivatives here read image and cotangent alone.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._bilinear import bilinear
from flaim_core.ops._convolution import xla_convolution
from flaim_core.ops._isolate import isolated
from flaim_core.ops._taps import Pads, Pair, padded, taps

# Columns of the cotangent that are summed by one expression; more of them take long to compile.
_MANY_COLUMNS = 32


def depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], *, stride: Pair, padding: Pads, dilation: Pair
) -> Float[Array, "b h2 w2 c"]:
    """Convolve each channel with a kernel of its own."""
    return _depthwise(x, kernel, stride=stride, padding=padding, dilation=dilation)


def _generic(x, kernel, **window):
    return xla_convolution(x, kernel[:, :, None], groups=x.shape[-1], **window)


def _on_cpu(x, kernel, *, padding: Pads, **window):
    """A sum of shifted products of the padded image.

    Padding stands outside of what is isolated, here and in the gradients, for XLA to do in the pass that computes the
    image: 4 images of 112x112x96 after an activation, then a 3x3 of stride 2, took 13 ms with a pass for padding, 11
    without (EfficientNet-B0, 8 images: 82 and 76 ms).
    """
    size = jax.eval_shape(functools.partial(_generic, padding=padding, **window), x, kernel).shape[1:3]
    return isolated(_shifted_products, size=size, **window)(padded(x, padding), kernel)


def _shifted_products(x, kernel, **window):
    pixels_met = taps(x, kernel.shape[:2], **window)
    return functools.reduce(jnp.add, (pixels * kernel[i, j] for i, j, pixels in pixels_met))


def _input_gradient(cotangent, kernel, *, shape: tuple[int, ...], stride: Pair, padding: Pads, dilation: Pair):
    """The gradient for the image: one sum of shifted products for each phase of the stride, then interleaved."""
    size = shape[1:3]
    counts = tuple(-(-n // s) for n, s in zip(size, stride))

    def shifts(axis: int, phase: int) -> tuple[Pair, ...]:
        """Kernel positions along an axis that meet pixels of this phase, and by how much the cotangent shifts."""
        offsets = ((i, phase + padding[axis][0] - i * dilation[axis]) for i in range(kernel.shape[axis]))
        return tuple((i, offset // stride[axis]) for i, offset in offsets if offset % stride[axis] == 0)

    rows, columns = (tuple(shifts(axis, phase) for phase in range(stride[axis])) for axis in (0, 1))
    down, right = ([by for phase in phases for _, by in phase] for phases in (rows, columns))
    pads = [(-min(by), max(by) + n - m) for by, n, m in zip((down, right), counts, cotangent.shape[1:3])]
    whole = isolated(_phases, rows=rows, columns=columns, counts=counts)(padded(cotangent, pads), kernel)
    return whole[:, : size[0], : size[1]]


def _phases(cotangent, kernel, *, rows, columns, counts: Pair):
    """Of an image, all phases of the stride interleaved; the padded cotangent begins at the least shifts."""
    first_down, first_right = (min(by for phase in phases for _, by in phase) for phases in (rows, columns))

    def phase(rows, columns) -> Array:
        total = jnp.zeros((cotangent.shape[0], *counts, cotangent.shape[-1]), cotangent.dtype)
        for i, down in rows:
            for j, right in columns:
                top, left = down - first_down, right - first_right
                total += cotangent[:, top : top + counts[0], left : left + counts[1]] * kernel[i, j]
        return total

    if len(rows) == len(columns) == 1:
        return phase(rows[0], columns[0])
    phases = jnp.stack([jnp.stack([phase(r, c) for c in columns], 3) for r in rows], 2)
    return phases.reshape(phases.shape[0], counts[0] * len(rows), counts[1] * len(columns), -1)


def _kernel_gradient(x, cotangent, *, shape: tuple[int, ...], stride: Pair, padding: Pads, dilation: Pair):
    """The gradient for the kernel, a row of it at a time.

    A column of the cotangent meets as many columns of the image as a row of the kernel has positions, next to each
    other: the sum of these products over the columns is elementwise work, which XLA runs as fast as the convolution
    itself; what is left to reduce is small. A reduction of as many operands as there are positions took two to four
    times as long (7x7, 56x56x96: 18 and 8 ms; 14x14x384: 5.3 and 2.0; 3x3, 112x112x32: 16 and 4.6).
    """
    columns = cotangent.shape[2]
    parts = -(-columns // _MANY_COLUMNS)
    terms = -(-columns // parts)  # of each part: what is compiled
    sizes = cotangent.shape[1], parts * terms
    reaches = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, stride, shape, dilation)]
    pads = [(low, reach - low - n) for (low, _), reach, n in zip(padding, reaches, x.shape[1:3])]
    x, cotangent = padded(x, pads), padded(cotangent, ((0, 0), (0, parts * terms - columns)))
    by_rows = isolated(_rows_of_kernel, shape=shape, parts=parts, terms=terms, stride=stride, dilation=dilation)
    return by_rows(x, cotangent)


def _rows_of_kernel(x, cotangent, *, shape: tuple[int, ...], parts: int, terms: int, stride: Pair, dilation: Pair):
    """The gradient for the kernel, of the padded image and cotangent, whose columns make `parts` of `terms`."""
    rows, width, channels = shape

    def of_one(place):
        row, part = place
        sums = isolated(_sums_over_columns, width=width, terms=terms, stride=stride, dilation=dilation)
        return jnp.sum(sums(x, cotangent, row, part * terms), (0, 1))

    places = jnp.repeat(jnp.arange(rows), parts), jnp.tile(jnp.arange(parts), rows)
    return lax.map(of_one, places).reshape(rows, parts, width, channels).sum(1).astype(x.dtype)


def _sums_over_columns(x, cotangent, row, first, *, width: int, terms: int, stride: Pair, dilation: Pair):
    """For each row of the cotangent, and each position in a row of the kernel, the sum over some columns."""
    batch, height, _, channels = cotangent.shape
    cut = functools.partial(lax.dynamic_slice, allow_negative_indices=False)
    span = batch, (height - 1) * stride[0] + 1, (width - 1) * dilation[1] + 1, channels
    total = jnp.zeros((), jnp.float32)
    for column in range(terms):
        corner = 0, row * dilation[0], (first + column) * stride[1], 0
        pixels = cut(x, corner, span)[:, :: stride[0], :: dilation[1]]
        met = cut(cotangent, (0, 0, first + column, 0), (batch, height, 1, channels))
        total += (pixels * met).astype(jnp.float32)
    return total


def _batch(args, dims, **window):
    """`jax.vmap`: over images alone the mapped axis joins the batch, otherwise the channels."""
    (x, kernel), (x_dim, kernel_dim) = args, dims
    if kernel_dim is None:
        x = jnp.moveaxis(x, x_dim, 0)
        y = depthwise(x.reshape(-1, *x.shape[2:]), kernel, **window)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    kernel = jnp.moveaxis(kernel, kernel_dim, 2)
    n, channels = kernel.shape[2:]
    across = (*x.shape[:3], n, channels)
    x = jnp.broadcast_to(x[:, :, :, None], across) if x_dim is None else jnp.moveaxis(x, x_dim, 3)
    y = depthwise(x.reshape(*x.shape[:3], -1), kernel.reshape(*kernel.shape[:2], -1), **window)
    return y.reshape(*y.shape[:3], n, channels), 3


_depthwise = bilinear(
    "depthwise_convolution",
    _generic,
    on_cpu=_on_cpu,
    input_gradient=_input_gradient,
    kernel_gradient=_kernel_gradient,
    batch=_batch,
)
