"""Convolution. On a CPU, `rules` chooses the implementation; elsewhere it is XLA's or, for 1x1, a matrix product."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import _jax
from flaim_core.lowering import for_single_cpu, is_abstract_evaluation, lax_is_patched
from flaim_core.ops._dense import dense
from flaim_core.ops._fits import check_fits
from flaim_core.ops._views import Pads, Pair, Sizes, pad, subsample
from flaim_core.ops.conv._window import Window, xla_convolution
from flaim_core.ops.conv.primitive import convolution, depthwise


def same_padding(size: Sizes, kernel_size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Pads:
    """TensorFlow's "same" padding: output size `ceil(size / stride)`; an odd pixel goes to the bottom or right."""

    def along_axis(n: Any, k: int, s: int, d: int) -> Sizes:
        total = (n - 1) // s * s + (k - 1) * d + 1 - n
        if (k - 1) * d + 1 < s:  # only then may it be negative; for symbolic sizes, a maximum is best avoided
            total = _jax.max_dim(total, 0)
        return total // 2, total - total // 2

    vertical, horizontal = map(along_axis, size, kernel_size, stride, dilation)
    return vertical, horizontal


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c_group f"],
    *,
    stride: Pair = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float[Array, "b h2 w2 f"]:
    """Two-dimensional convolution (cross-correlation, as in every deep-learning library).

    `padding` is ((top, bottom), (left, right)), in pixels. Raises SizeError where images are smaller than the kernel.
    """
    if not all(isinstance(n, int) for side in padding for n in side):  # XLA's convolution takes no symbolic padding
        x, padding = pad(x, padding), ((0, 0), (0, 0))
    window = Window(stride, padding, dilation, groups)
    check_fits((x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1]), padding, dilation)
    (height, width, per_group), channels = kernel.shape[:3], x.shape[-1]
    if is_abstract_evaluation():
        size = window.output_size(x.shape[1:3], (height, width))
        return jnp.zeros((x.shape[0], *size, kernel.shape[3]), jnp.result_type(x.dtype, kernel.dtype))
    if (height, width) == (1, 1) and window.is_unpadded and groups == 1 and not lax_is_patched():
        return dense(subsample(x, stride), kernel[0, 0])
    if not for_single_cpu(x, kernel):
        return xla_convolution(x, kernel, window=window)
    if (height, width) == stride and window.is_unpadded and dilation == (1, 1) and groups == 1:
        return _patchify(x, kernel)
    if groups == channels and per_group == 1:
        x = jnp.repeat(x, kernel.shape[-1] // channels, axis=-1)  # depth multiplier: several outputs per channel
        return depthwise(x, kernel[:, :, 0], window=window._replace(groups=1))
    return convolution(x, kernel, window=window)


def _patchify(x: Float[Array, "b h w c"], kernel: Float[Array, "p q c f"]) -> Float[Array, "b rows columns f"]:
    """The convolution of non-overlapping patches (kernel size equal to stride), as one dot product.

    As in any convolution, a partial patch at the bottom or right is left out.
    """
    batch, height, width, channels = x.shape
    p, q = kernel.shape[:2]
    rows, columns = height // p, width // q
    x = x[:, : rows * p, : columns * q].reshape(batch, rows, p, columns, q, channels)
    patches = x.swapaxes(2, 3).reshape(batch, rows, columns, -1)
    return dense(patches, kernel.reshape(-1, kernel.shape[-1]))
