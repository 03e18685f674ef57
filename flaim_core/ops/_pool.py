"""Pooling. On a CPU, a maximum or sum of shifted views is faster than XLA's `reduce_window`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flaim_core import _jax
from flaim_core.lowering import for_single_cpu, lax_is_patched
from flaim_core.ops._broadcast import per_channel, split_axis
from flaim_core.ops._fits import check_fits
from flaim_core.ops._precision import at_least_float32
from flaim_core.ops._views import Pads, Pair, Sizes, pad, shifted_views
from flaim_core.ops.conv import conv
from flaim_core.ops.conv._window import Window

_NO_PADDING: Pads = ((0, 0), (0, 0))


def _views(x: Array, window: Pair, stride: Pair) -> list[Array]:
    """The shifted views (b, h2, w2, c) of `x`, one for each position in the window, row by row."""
    rows = (x.shape[1] - window[0]) // stride[0] + 1
    columns = (x.shape[2] - window[1]) // stride[1] + 1
    views = shifted_views(x, window, stride=stride, dilation=(1, 1), size=(rows, columns))
    return [pixels for _, _, pixels in views]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_of_views(x: Array, window: Pair, stride: Pair) -> Array:
    def of_views(x):
        return [functools.reduce(jnp.maximum, _views(x, window, stride))]

    def generic(x):
        return [_reduce_window(x, window, stride, -jnp.inf, lax.max)]

    (y,) = jax.eval_shape(generic, x)
    outputs = [_jax.ShapedArray(y.shape, y.dtype)]
    return _jax.lower_per_platform(x, cpu=of_views, default=generic, outputs=outputs)[0]


@_max_of_views.defjvp
def _max_of_views_jvp(window: Pair, stride: Pair, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The tangent is that of the first of equal maxima, as in torch; its position is the only residual."""
    first, *others = _views(primals[0], window, stride)
    best, position = first, jnp.zeros(first.shape, jnp.int32)
    for i, pixels in enumerate(others, 1):
        position = jnp.where(pixels > best, i, position)
        best = jnp.maximum(best, pixels)
    position = position.astype(jnp.uint8 if len(others) < 256 else jnp.int32)
    selected = [jnp.where(position == i, t, 0) for i, t in enumerate(_views(tangents[0], window, stride))]
    return best, functools.reduce(jnp.add, selected)


def _sum_of_views(x: Array, window: Pair, stride: Pair) -> Array:
    return functools.reduce(jnp.add, _views(x, window, stride))


def _reduce_window(
    x: Array, window: Pair, stride: Pair, initial: float, combine: Callable, padding: Pads = _NO_PADDING
) -> Array:
    start = np.asarray(initial, x.dtype)  # concrete, so that JAX recognises maximum and sum, which have gradients
    if not all(isinstance(n, int) for side in padding for n in side):  # symbolic
        x, padding = pad(x, padding, initial), _NO_PADDING
    pads = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, start, combine, (1, *window, 1), (1, *stride, 1), pads)


def _ceil_padding(size: Sizes, window: Pair, stride: Pair, padding: Pads) -> Pads:
    """`padding`, extended at the bottom and right so that a last, partial window fits (torch's `ceil_mode`)."""

    def along_axis(n: Any, k: int, s: int, pads: Sizes) -> Sizes:
        before, after = pads
        last = (n + before + after - k + s - 1) // s  # the last window, counted from 0
        if after + s <= k:
            return before, last * s + k - n - before
        last = _jax.min_dim(last, (n + before - 1) // s)  # torch drops a window that starts in the padding
        return before, _jax.max_dim(after, last * s + k - n - before)

    vertical, horizontal = map(along_axis, size, window, stride, padding)
    return vertical, horizontal


def max_pool(
    x: Float[Array, "b h w c"],
    window: Pair,
    stride: Pair,
    padding: Pads = _NO_PADDING,
    ceil_mode: bool = False,
) -> Float[Array, "b h2 w2 c"]:
    """Maximum over windows; padding is minus infinity. With `ceil_mode`, a last, partial window has an output too."""
    if ceil_mode:
        padding = _ceil_padding((x.shape[1], x.shape[2]), window, stride, padding)
    check_fits((x.shape[1], x.shape[2]), window, padding)
    if for_single_cpu(x):
        return _max_of_views(pad(x, padding, -jnp.inf), window, stride)
    return _reduce_window(x, window, stride, -jnp.inf, lax.max, padding)


def avg_pool(
    x: Float[Array, "b h w c"],
    window: Pair,
    stride: Pair,
    padding: Pads = _NO_PADDING,
    ceil_mode: bool = False,
    count_padding: bool = True,
) -> Float[Array, "b h2 w2 c"]:
    """Mean over windows. Padding counts as zeros with `count_padding`, otherwise it is left out of the mean.

    With `ceil_mode`, a last, partial window has an output too; what lies beyond the padding is left out of its mean, as
    in torch.
    """
    size = (x.shape[1], x.shape[2])
    extended = _ceil_padding(size, window, stride, padding) if ceil_mode else padding
    check_fits(size, window, extended)
    if for_single_cpu(x):
        total = _sum_of_views(pad(x, extended), window, stride)
    else:
        total = _reduce_window(x, window, stride, 0, lax.add, extended)
    if extended == (padding if count_padding else _NO_PADDING):
        return total * jnp.asarray(1 / (window[0] * window[1]), x.dtype)
    counts = [
        _window_counts(m, n, k, s, pads if count_padding else (0, 0), before)
        for m, n, k, s, pads, (before, _) in zip(total.shape[1:3], size, window, stride, padding, extended)
    ]
    return total / (counts[0][None, :, None, None] * counts[1][None, None, :, None]).astype(x.dtype)


def _window_counts(windows: Any, n: Any, window: int, stride: int, counted: tuple[Any, Any], before: Any) -> Array:
    """For each of the windows along an axis of `n` pixels, how many of its positions the mean counts.

    These are the positions on pixels and on the padding `counted` (before, after). The first window starts `before`
    positions in front of the first pixel.
    """
    start = jnp.arange(windows, dtype=jnp.int32) * stride - before
    return jnp.minimum(start + window, n + counted[1]) - jnp.maximum(start, -counted[0])


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: Pair) -> Float[Array, "b h2 w2 c"]:
    """Mean over `size[0]` x `size[1]` bins, accumulated in float32 or wider; torch's adaptive average pooling.

    Bin `i` of `m` along an axis of `n` pixels has those from `i * n / m`, rounded down, to `(i + 1) * n / m`, rounded
    up. Bins overlap where `m` does not divide `n`, and share pixels where there are more bins than pixels.
    """
    wide = at_least_float32(x)
    if all(isinstance(n, int) and n % bins == 0 for n, bins in zip(x.shape[1:3], size)):
        blocks = split_axis(split_axis(wide, 2, x.shape[2] // size[1]), 1, x.shape[1] // size[0])
        return jnp.mean(blocks, (2, 4)).astype(x.dtype)
    rows, columns = (_bin_means(n, bins, wide.dtype) for n, bins in zip(x.shape[1:3], size))
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    return product("bphc,qp->bqhc", product("bhwc,qw->bhqc", wide, columns), rows).astype(x.dtype)


def _bin_means(n: Any, bins: int, dtype: Any) -> Array:
    """The matrix (bins, n) of the means over `adaptive_avg_pool`'s bins along an axis of `n` pixels."""
    position, pixel = (jnp.arange(m, dtype=jnp.int32) for m in (bins, n))
    first, stop = (position * n // bins)[:, None], (-(-(position + 1) * n // bins))[:, None]
    within = ((pixel[None] >= first) & (pixel[None] < stop)).astype(dtype)
    return within / jnp.sum(within, 1, keepdims=True)


def global_avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Mean over height and width, accumulated in float32 or wider."""
    return jnp.mean(at_least_float32(x), axis=(1, 2)).astype(x.dtype)


def global_max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Maximum over height and width."""
    return jnp.max(x, axis=(1, 2))


def blur_pool(
    x: Float[Array, "b h w c"], stride: int = 2, filter_size: int = 3, border: str = "reflect"
) -> Float[Array, "b h2 w2 c"]:
    """Downsample after a fixed binomial low-pass filter of `filter_size` x `filter_size`.

    `border` is the padding: the image reflected (`"reflect"`) or zeros (`"constant"`).
    Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019); timm's `BlurPool2d`.
    """
    row = np.poly1d((0.5, 0.5)) ** (filter_size - 1)
    weights = jnp.asarray(np.outer(row.coeffs, row.coeffs)[:, :, None, None], x.dtype)
    kernel = jnp.broadcast_to(weights, (filter_size, filter_size, 1, x.shape[-1]))
    before = (stride - 1 + filter_size - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, before), (before, before), (0, 0)), mode=border)
    if lax_is_patched():  # without parameters: not for quantisation, so not a convolution
        window, side = Window((stride, stride)), (filter_size, filter_size)
        size = window.output_size(x.shape[1:3], side)
        views = shifted_views(x, side, stride=window.stride, dilation=window.dilation, size=size)
        return functools.reduce(jnp.add, (view * per_channel(kernel[i, j, 0], view) for i, j, view in views))
    return conv(x, kernel, stride=(stride, stride), groups=x.shape[-1])
