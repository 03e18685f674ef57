"""Depthwise convolution on a CPU, as a sum of shifted products.

    y = sum over kernel positions (i, j) of  shifted view (b, h2, w2, c) of x  *  kernel[i, j] (c)

XLA fuses the sum into one pass over the images.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._broadcast import per_channel
from flaim_core.ops._no_inline import no_inline
from flaim_core.ops._precision import accumulation_dtype
from flaim_core.ops._views import Pair, pad, shifted_views
from flaim_core.ops.conv._window import Shape, Window

# Largest number of columns of the cotangent that one fused expression sums; more would take long to compile.
_MAX_COLUMNS = 32


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], *, window: Window
) -> Float[Array, "b h2 w2 c"]:
    """The convolution.

    Padding is not part of the function that is compiled on its own, here and in the gradients, so that XLA can fuse it
    with the operation that computes the images.
    """
    size = window.output_size(x.shape[1:3], kernel.shape[:2])
    products = no_inline(_shifted_products, size=size, stride=window.stride, dilation=window.dilation)
    return products(pad(x, window.padding), kernel)


def _shifted_products(x: Array, kernel: Array, *, size: Pair, stride: Pair, dilation: Pair) -> Array:
    views = shifted_views(x, kernel.shape[:2], stride=stride, dilation=dilation, size=size)  # type: ignore[arg-type]
    return functools.reduce(jnp.add, (pixels * per_channel(kernel[i, j], x) for i, j, pixels in views))


def input_gradient(
    cotangent: Float[Array, "b h2 w2 c"], kernel: Float[Array, "kh kw c"], *, shape: Shape, window: Window
) -> Float[Array, "b h w c"]:
    """The gradient with respect to images of `shape`.

    With stride (s, t), the pixels of an image have s * t phases (row % s, column % t). The pixels of a phase are a
    smaller image (b, ceil(h / s), ceil(w / t), c), on which only some kernel positions ever lie. Its gradient is a sum
    of shifted products of the cotangent. The gradients of all phases are then interleaved.
    """
    stride, padding, dilation, _ = window
    size = shape[1:3]
    counts = tuple(-(-n // s) for n, s in zip(size, stride))

    def shifts(axis: int, phase: int) -> tuple[Pair, ...]:
        """The kernel positions along an axis that lie on pixels of this phase, each with the shift of the cotangent."""
        offsets = ((i, phase + padding[axis][0] - i * dilation[axis]) for i in range(kernel.shape[axis]))
        return tuple((i, offset // stride[axis]) for i, offset in offsets if offset % stride[axis] == 0)

    rows, columns = (tuple(shifts(axis, phase) for phase in range(stride[axis])) for axis in (0, 1))
    down, right = ([by for phase in phases for _, by in phase] for phases in (rows, columns))
    pads = [(-min(by), max(by) + n - m) for by, n, m in zip((down, right), counts, cotangent.shape[1:3])]
    vertical, horizontal = pads
    whole = no_inline(_phases, rows=rows, columns=columns, counts=counts)(
        pad(cotangent, (vertical, horizontal)), kernel
    )
    return whole[:, : size[0], : size[1]]


def _phases(cotangent: Array, kernel: Array, *, rows: tuple, columns: tuple, counts: Pair) -> Array:
    """The gradients of all phases, interleaved; the cotangent is padded so that it starts at the smallest shifts."""
    first_down, first_right = (min(by for phase in phases for _, by in phase) for phases in (rows, columns))

    def phase(rows, columns) -> Array:
        total = jnp.zeros((cotangent.shape[0], *counts, cotangent.shape[-1]), cotangent.dtype)
        for i, down in rows:
            for j, right in columns:
                top, left = down - first_down, right - first_right
                view = cotangent[:, top : top + counts[0], left : left + counts[1]]
                total += view * per_channel(kernel[i, j], view)
        return total

    if len(rows) == len(columns) == 1:
        return phase(rows[0], columns[0])
    phases = jnp.stack([jnp.stack([phase(r, c) for c in columns], 3) for r in rows], 2)
    return phases.reshape(phases.shape[0], counts[0] * len(rows), counts[1] * len(columns), -1)


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 c"], *, shape: Shape, window: Window
) -> Float[Array, "kh kw c"]:
    """The gradient with respect to a kernel of `shape` (kh, kw, c), one row (kw, c) at a time.

    For row i and padded x, with stride and dilation 1:

        sums (b, h2, kw, c) = sum over columns n of  x[:, i : i + h2, n : n + kw]  *  cotangent[:, :, n : n + 1]
        gradient[i] (kw, c) = sums, summed over b and h2

    The first sum is elementwise, so XLA fuses it into one pass, as fast as the convolution itself. It is split into
    `parts` of `terms` columns, since an expression with too many terms compiles slowly. The direct way, a reduction
    over b, h2 and w2 for each kernel position, is much slower.
    """
    stride, padding, dilation, _ = window
    columns = cotangent.shape[2]
    parts = -(-columns // _MAX_COLUMNS)
    terms = -(-columns // parts)
    sizes = cotangent.shape[1], parts * terms
    reaches = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, stride, shape, dilation)]
    pads = [(low, reach - low - n) for (low, _), reach, n in zip(padding, reaches, x.shape[1:3])]
    vertical, horizontal = pads
    x, cotangent = pad(x, (vertical, horizontal)), pad(cotangent, ((0, 0), (0, parts * terms - columns)))
    by_rows = no_inline(_rows_of_kernel, shape=shape, parts=parts, terms=terms, stride=stride, dilation=dilation)
    return by_rows(x, cotangent)


def _rows_of_kernel(
    x: Array, cotangent: Array, *, shape: Shape, parts: int, terms: int, stride: Pair, dilation: Pair
) -> Array:
    """`kernel_gradient` for padded images and a cotangent that is padded to `parts * terms` columns."""
    rows, width, channels = shape

    def of_part(row_and_part):
        row, part = row_and_part
        sums = no_inline(_sums_over_columns, width=width, terms=terms, stride=stride, dilation=dilation)
        return jnp.sum(sums(x, cotangent, row, part * terms), (0, 1))

    rows_and_parts = jnp.repeat(jnp.arange(rows), parts), jnp.tile(jnp.arange(parts), rows)
    return lax.map(of_part, rows_and_parts).reshape(rows, parts, width, channels).sum(1).astype(x.dtype)


def _sums_over_columns(
    x: Array, cotangent: Array, row: Array, first: Array, *, width: int, terms: int, stride: Pair, dilation: Pair
) -> Array:
    """`sums` (b, h2, kw, c) of `kernel_gradient`, for kernel row `row` and `terms` columns from `first` on."""
    batch, height, _, channels = cotangent.shape
    cut = functools.partial(lax.dynamic_slice, allow_negative_indices=False)
    span = batch, (height - 1) * stride[0] + 1, (width - 1) * dilation[1] + 1, channels
    total = jnp.zeros((batch, height, width, channels), accumulation_dtype(x))
    for column in range(terms):
        corner = 0, row * dilation[0], (first + column) * stride[1], 0
        pixels = cut(x, corner, span)[:, :: stride[0], :: dilation[1]]
        slopes = cut(cotangent, (0, 0, first + column, 0), (batch, height, 1, channels))
        total += (pixels * slopes).astype(total.dtype)
    return total
