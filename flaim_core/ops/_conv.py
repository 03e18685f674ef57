"""Convolution, lowered to what the platform runs fastest.

XLA's generic convolution is a poor choice on a CPU for whole classes of layers. Measured on 2 cores (float32, jax
0.10.2, batch 8):

    depthwise 7x7, 56x56x96            generic 115 ms, shifted products 3.2 ms
    depthwise 3x3, 56x56x144           generic 76 ms, shifted products 3.2 ms
    1x1, 56x56, 64 -> 256              generic 7.5 ms, dot product 2.6 ms
    4x4 stride 4, 224x224, 3 -> 96     generic 2.7 ms, reshape and dot product 1.9 ms
    grouped 3x3, 32 groups, 28x28x256  generic 41 ms, eight dense ones on block-diagonal kernels 5.1 ms
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core.ops._convolution import convolution
from flaim_core.ops._dense import dense
from flaim_core.ops._depthwise import depthwise
from flaim_core.ops._fits import check_fits
from flaim_core.ops._taps import Pads, Pair


def same_padding(size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Pads:
    """TensorFlow's "same" padding: output size `ceil(size / stride)`, the odd pixel at the bottom and right."""

    def along_axis(n: int, k: int, s: int, d: int) -> Pair:
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        return total // 2, total - total // 2

    vertical, horizontal = map(along_axis, size, kernel_size, stride, dilation)
    return vertical, horizontal


@functools.partial(jax.jit, static_argnames=("stride", "padding", "dilation", "groups"))
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

    `padding` is ((top, bottom), (left, right)), in pixels.
    """
    (height, width, per_group), channels = kernel.shape[:3], x.shape[-1]
    check_fits((x.shape[1], x.shape[2]), (height, width), padding, dilation)
    unpadded = padding == ((0, 0), (0, 0))
    if (height, width) == (1, 1) and unpadded and groups == 1:
        return _pointwise(x, kernel, stride)
    if (height, width) == stride and unpadded and dilation == (1, 1) and groups == 1:
        return _patchify(x, kernel)
    if groups == channels and per_group == 1:
        x = jnp.repeat(x, kernel.shape[-1] // channels, axis=-1)  # a depth multiplier: that many outputs a channel
        return depthwise(x, kernel[:, :, 0], stride=stride, padding=padding, dilation=dilation)
    return convolution(x, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _pointwise(x, kernel, stride):
    return dense(x[:, :: stride[0], :: stride[1]], kernel[0, 0])


def _patchify(x, kernel):
    """Non-overlapping patches as one dot product; as in any convolution, a last partial patch is dropped."""
    batch, height, width, channels = x.shape
    p, q = kernel.shape[:2]
    rows, columns = height // p, width // q
    x = x[:, : rows * p, : columns * q].reshape(batch, rows, p, columns, q, channels)
    patches = x.swapaxes(2, 3).reshape(batch, rows, columns, -1)
    return dense(patches, kernel.reshape(-1, kernel.shape[-1]))
