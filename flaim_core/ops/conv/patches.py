"""Convolution as a matrix product with patches (im2col): the pixels under the kernel, concatenated."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._no_inline import no_inline
from flaim_core.ops._precision import accumulation_dtype
from flaim_core.ops._views import Pair, pad, pad_rows, shifted_views
from flaim_core.ops.conv._window import Shape, Window


def _patches(x: Float[Array, "b h w c"], shape: Shape, window: Window, size: Pair) -> Float[Array, "b h2 w2 khkwc"]:
    """The patch (kh * kw * c numbers) of the padded images for each output pixel."""
    views = shifted_views(x, shape[:2], stride=window.stride, dilation=window.dilation, size=size)  # type: ignore[arg-type]
    return jnp.concatenate([pixels for _, _, pixels in views], -1)


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The convolution as one product. XLA fuses the padding into the computation of the patches."""
    size = window.output_size(x.shape[1:3], kernel.shape[:2])
    return _product(pad(x, window.padding), kernel, window=window, size=size)


def forward_padded_first(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The same, with the padded images in memory first. Fused, padding is recomputed for each kernel position."""
    size = window.output_size(x.shape[1:3], kernel.shape[:2])
    return no_inline(_product, window=window, size=size)(pad(x, window.padding), kernel)


def _product(x: Array, kernel: Array, *, window: Window, size: Pair) -> Array:
    patches = _patches(x, kernel.shape, window, size)
    return lax.dot_general(patches, kernel.reshape(-1, kernel.shape[3]), (((3,), (0,)), ((), ())))


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, shape: Shape, window: Window
) -> Float[Array, "kh kw c f"]:
    """The gradient with respect to a kernel of `shape`, for padded images.

    The product of the patches (b * h2 * w2, kh * kw * c), transposed, with the cotangent (b * h2 * w2, f).
    """
    patches = _patches(x, shape, window, cotangent.shape[1:3])  # type: ignore[arg-type]
    rows = patches.reshape(-1, patches.shape[-1]), cotangent.reshape(-1, shape[-1])
    product = lax.dot_general(*rows, (((0,), (0,)), ((), ())), preferred_element_type=accumulation_dtype(x))
    return product.reshape(shape).astype(x.dtype)


def kernel_gradients_by_image(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, parts: int, shape: Shape, window: Window
) -> Float[Array, "parts kh kw c_part f_part"]:
    """The gradients with respect to the kernels of dense parts, of `shape` (kh, kw, c_part, f_part).

    The sum, over images, of matrix products. One image at a time, so that the copies of it stay in the cache:

        image      (h, w, c)    padded, flattened:            (parts, c_part, rows * columns)
        cotangent  (h2, w2, f)  padded to as many columns:    (parts, h2 * columns, f_part)
        gradient[i, j] (parts, c_part, f_part) =  slice of the image that starts at i * columns + j  @  cotangent

    A slice is h2 * columns long. It runs over the ends of rows, but there the cotangent is zero.

    There are two ways to compute all (i, j). Either the slices for all (i, j) are concatenated and multiplied by the
    cotangent, or the slices for all i (with j = 0) by the concatenation of the cotangent shifted by each j. The one
    that copies less is used.

    With a stride, image pixels are first sorted by phase, (row % stride, column % stride), so that a slice is
    contiguous. Kernel position i is then at offset i * dilation // stride in phase i * dilation % stride. Phases next
    to each other at the same offset are one slice, since XLA compiles each slice separately.
    """
    stride, padding, dilation, _ = window
    total_dtype = accumulation_dtype(x)
    (height, width, channels, features), (out_height, out_width) = shape, cotangent.shape[1:3]
    down, right = ([(i * d // s, i * d % s) for i in range(k)] for k, d, s in zip(shape, dilation, stride))
    columns = out_width + right[-1][0]
    rows = out_height + down[-1][0] + 1  # one more, since the last slices run over the end
    pads = [
        (before, count * s - n - before, 0)
        for (before, _), count, s, n in zip(padding, (rows, columns), stride, x.shape[1:3])
    ]
    # For each matrix product: the slices, as (offset, phases) in both directions, and the shifts of the cotangent.
    products = [([(i, j) for i in _runs(down) for j in _runs(right)], [0])]
    if height * channels + width * features < height * width * channels + features:
        shifts = {phase: [offset for offset, p in right if p == phase] for _, phase in right}
        products = [([(i, (0, range(p, p + 1))) for i in _runs(down)], offsets) for p, offsets in shifts.items()]

    def of_one(totals, image_and_cotangent):
        image, cotangent = image_and_cotangent
        image = lax.pad(image.transpose(2, 0, 1), jnp.zeros((), x.dtype), [(0, 0, 0), *pads])
        image = image.reshape(parts, channels, rows, stride[0], columns, stride[1]).transpose(0, 3, 5, 1, 2, 4)
        image = image.reshape(parts, *stride, channels, -1)
        cotangent = pad_rows(cotangent[None], ((0, 0), (0, columns - out_width)))[0]
        cotangent = cotangent.reshape(-1, parts, features).swapaxes(0, 1)

        def product(slices, shifts):
            largest = shifts[-1]
            size = cotangent.shape[1] + largest
            pixels = []
            for (a, ps), (b, qs) in slices:
                start = a * columns + b
                pixels.append(image[:, ps.start : ps.stop, qs.start : qs.stop, :, start : start + size])
            shifted = [jnp.pad(cotangent, ((0, 0), (by, largest - by), (0, 0))) for by in shifts]
            operands = jnp.concatenate([p.reshape(parts, -1, size) for p in pixels], 1), jnp.concatenate(shifted, 2)
            return jnp.matmul(*operands, preferred_element_type=total_dtype)

        return [total + product(*which) for total, which in zip(totals, products)], None

    # The (offset, phase) in both directions of the rows of each product's result, in blocks of `channels` rows.
    places = [[((a, p), (b, q)) for (a, ps), (b, qs) in slices for p in ps for q in qs] for slices, _ in products]
    sizes = [(len(where) * channels, len(shifts) * features) for where, (_, shifts) in zip(places, products)]
    totals, _ = lax.scan(of_one, [jnp.zeros((parts, *size), total_dtype) for size in sizes], (x, cotangent))
    totals = [total.reshape(parts, -1, channels, len(w[1]), features) for total, w in zip(totals, products)]
    kernels = jnp.concatenate([t.swapaxes(2, 3).reshape(parts, -1, channels, features) for t in totals], 1)
    found = [(i, (b + by, q)) for where, (_, shifts) in zip(places, products) for i, (b, q) in where for by in shifts]
    order = [found.index((i, j)) for i in down for j in right]
    if order != sorted(order):
        kernels = kernels[:, np.array(order)]
    return kernels.reshape(parts, *shape).astype(x.dtype)


def _runs(positions: Sequence[Pair]) -> list[tuple[int, range]]:
    """Merge positions (offset, phase) that follow one another at the same offset: (offset, range of phases)."""
    runs: list[tuple[int, range]] = []
    for offset, phase in positions:
        if runs and runs[-1] == (offset, range(runs[-1][1].start, phase)):
            runs[-1] = offset, range(runs[-1][1].start, phase + 1)
        else:
            runs.append((offset, range(phase, phase + 1)))
    return runs
