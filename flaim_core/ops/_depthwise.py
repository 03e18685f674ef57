"""Depthwise convolution as a primitive of its own, bilinear in image and kernel, lowered by platform.

On a CPU it is a sum, over kernel positions, of shifted images times one number a channel, which XLA fuses into one pass
over the image; elsewhere XLA's convolution. Left to itself, automatic differentiation would keep every shifted image:
the training step of ConvNeXt-T at batch 8 took 5.5 GB. The derivatives here read image and cotangent alone.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from flaim_core.ops._isolate import isolated

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], *, stride: Pair, padding: Pads, dilation: Pair
) -> Float[Array, "b h2 w2 c"]:
    """Convolve each channel with a kernel of its own."""
    return _depthwise_p.bind(x, kernel, stride=stride, padding=padding, dilation=dilation)


def _generic(x, kernel, *, stride, padding, dilation):
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _taps(x, kernel_size: Pair, *, stride: Pair, padding: Pads, dilation: Pair, size: Pair):
    """For each kernel position, in rows, the pixels that it meets: views of the padded image of `size`."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (size[0] - 1) * stride[0] + 1, left + (size[1] - 1) * stride[1] + 1
            yield i, j, x[:, top : bottom : stride[0], left : right : stride[1]]


def _shifted_products(x, kernel, **window):
    size = jax.eval_shape(functools.partial(_generic, **window), x, kernel).shape[1:3]
    taps = _taps(x, kernel.shape[:2], size=size, **window)
    return functools.reduce(jnp.add, (pixels * kernel[i, j] for i, j, pixels in taps))


def _input_gradient(cotangent, kernel, *, size: Pair, stride: Pair, padding: Pads, dilation: Pair):
    """The gradient for the image: one sum of shifted products for each phase of the stride, then interleaved."""
    counts = tuple(-(-n // s) for n, s in zip(size, stride))

    def shifts(axis: int, phase: int) -> list[tuple[int, int]]:
        """Kernel positions along an axis that meet pixels of this phase, and by how much the cotangent shifts."""
        offsets = ((i, phase + padding[axis][0] - i * dilation[axis]) for i in range(kernel.shape[axis]))
        return [(i, offset // stride[axis]) for i, offset in offsets if offset % stride[axis] == 0]

    def phase(p: int, q: int) -> Array:
        rows, columns = shifts(0, p), shifts(1, q)
        total = jnp.zeros((cotangent.shape[0], *counts, cotangent.shape[-1]), cotangent.dtype)
        if not rows or not columns:
            return total
        low = [min(shift for _, shift in along) for along in (rows, columns)]
        high = [max(shift for _, shift in along) for along in (rows, columns)]
        pads = [(-a, b + n - m, 0) for a, b, n, m in zip(low, high, counts, cotangent.shape[1:3])]
        padded = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
        for i, down in rows:
            for j, right in columns:
                top, left = down - low[0], right - low[1]
                total += padded[:, top : top + counts[0], left : left + counts[1]] * kernel[i, j]
        return total

    if stride == (1, 1):
        return phase(0, 0)
    phases = jnp.stack([jnp.stack([phase(p, q) for q in range(stride[1])], 3) for p in range(stride[0])], 2)
    whole = phases.reshape(phases.shape[0], counts[0] * stride[0], counts[1] * stride[1], -1)
    return whole[:, : size[0], : size[1]]


def _kernel_gradient(x, cotangent, *, kernel_size: Pair, **window):
    """The gradient for the kernel: for each position, image times cotangent summed over pixels, an image at a time."""

    def of_one(total, image_and_cotangent):
        image, cotangent = (a[None] for a in image_and_cotangent)
        taps = _taps(image, kernel_size, size=cotangent.shape[1:3], **window)
        sums = [jnp.sum((pixels * cotangent).astype(jnp.float32), (0, 1, 2)) for _, _, pixels in taps]
        return total + jnp.stack(sums), None

    start = jnp.zeros((kernel_size[0] * kernel_size[1], x.shape[-1]), jnp.float32)
    total, _ = lax.scan(of_one, start, (x, cotangent))
    return total.reshape(*kernel_size, -1).astype(x.dtype)


def _on_cpu(x, kernel, **window):
    return isolated(_shifted_products, **window)(x, kernel)


def _transpose_input(cotangent, x, kernel, **window):
    shape, dtype = x.aval.shape, x.aval.dtype

    def generic(cotangent, kernel):
        convolve = functools.partial(_generic, kernel=kernel, **window)
        return jax.linear_transpose(convolve, jax.ShapeDtypeStruct(shape, dtype))(cotangent)[0]

    shifted = isolated(_input_gradient, size=shape[1:3], **window)
    return lax.platform_dependent(cotangent, kernel, cpu=shifted, default=generic)


def _transpose_kernel(cotangent, x, kernel, **window):
    shape, dtype = kernel.aval.shape, kernel.aval.dtype

    def generic(x, cotangent):
        convolve = functools.partial(_generic, x, **window)
        return jax.linear_transpose(convolve, jax.ShapeDtypeStruct(shape, dtype))(cotangent)[0]

    summed = isolated(_kernel_gradient, kernel_size=shape[:2], **window)
    return lax.platform_dependent(x, cotangent, cpu=summed, default=generic)


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


_depthwise_p = Primitive("depthwise_convolution")
_depthwise_p.def_impl(_generic)
_depthwise_p.def_abstract_eval(
    lambda x, kernel, **window: jax.core.ShapedArray(
        jax.eval_shape(functools.partial(_generic, **window), x, kernel).shape, x.dtype
    )
)
ad.defbilinear(_depthwise_p, _transpose_input, _transpose_kernel)
batching.primitive_batchers[_depthwise_p] = _batch
mlir.register_lowering(_depthwise_p, mlir.lower_fun(_generic, multiple_results=False))
mlir.register_lowering(_depthwise_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
