"""Dense and grouped convolution as XLA has it, with lowerings and derivatives that a CPU runs faster.

Measured on 2 cores (float32, jax 0.10.2, batch 8), the gradient for a 3x3 kernel, from XLA, by images with the slices
for all positions, and with the cotangent shifted: 56x56, 64 channels 48, 16 and 14 ms; 28x28, 128 channels 26, 12 and
10; 32 groups, 56x56x128, four dense gradients by images 47 ms, all in one 20; 28x28x256 22 and 9; 7x7 from 3 to 64
channels with stride 2, 224x224, 31 with all slices, 53 with shifts. At 7x7 pixels, 512 channels, 14 by images and 8 by
patches. The convolution itself as a product of patches: a stem, 3x3 with stride 2 from 3 to 32 channels, 4 images of
224x224, XLA's 4.2 ms and 2.2, to 64 channels 3.3 and 5.7; 3x3, 7x7 pixels, 512 channels, one image 1.9 and 1.3 ms, four
4.8 and 3.9, eight 8.8 and 7.8; 14x14, 256 channels 1.0 and 1.2.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaim_core.ops import _winograd
from flaim_core.ops._bilinear import bilinear
from flaim_core.ops._groups import by_parts, from_parts, groups_in_part, to_parts
from flaim_core.ops._isolate import isolated
from flaim_core.ops._taps import Pads, Pair, padded, taps

# From so many output pixels on, the kernel's gradient goes by images; below, by the patches of all of them.
_MANY_PIXELS = 400
# Input times output channels up to which that gradient is faster by images than by Winograd's way.
_SMALL_KERNEL = 64 * 64
# Patches are worth making for the convolution itself up to so many numbers in a patch and output channels, or for so
# few output pixels of all images and so large a kernel.
_FEW, _FEW_PIXELS, _LARGE_KERNEL = 32, 392, 2**20


def xla_convolution(x, kernel, *, stride: Pair, padding: Pads, dilation: Pair, groups: int):
    """XLA's convolution of channels-last images."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _patches(x, kernel_size: Pair, **window):
    """What each output pixel meets in the padded image `x`, `(b, h, w, all of it)`."""
    return jnp.concatenate([pixels for _, _, pixels in taps(x, kernel_size, **window)], -1)


def _on_cpu(x, kernel, *, groups: int, **window):
    if groups > 1:
        return by_parts(functools.partial(_on_cpu, groups=1, **window), x, to_parts(kernel, groups))
    if _by_winograd(x, kernel.shape, **window):
        return _winograd.convolution(x, kernel, window["padding"])
    shape = jax.eval_shape(functools.partial(xla_convolution, groups=1, **window), x, kernel).shape
    is_narrow = math.prod(kernel.shape[:3]) <= _FEW and kernel.shape[3] <= _FEW
    is_brief = math.prod(shape[:3]) <= _FEW_PIXELS and kernel.size >= _LARGE_KERNEL
    if not (is_narrow or is_brief):
        return xla_convolution(x, kernel, groups=1, **window)
    x = padded(x, window.pop("padding"))
    # A stem's padding is best made with the patches (MobileNetV2, one image, 5 % of the time); elsewhere XLA would make
    # what was before the padding for each kernel position anew.
    apart = functools.partial if is_narrow else isolated
    return apart(_product_of_patches, size=shape[1:3], **window)(x, kernel)


def _product_of_patches(x, kernel, **window):
    patches = _patches(x, kernel.shape[:2], **window)
    return lax.dot_general(patches, kernel.reshape(-1, kernel.shape[3]), (((3,), (0,)), ((), ())))


def _by_winograd(x, shape, *, stride: Pair, padding, dilation: Pair) -> bool:
    return stride == dilation == (1, 1) and _winograd.serves(x.shape, shape, padding, x.dtype)


def _input_gradient(cotangent, kernel, *, shape, stride: Pair, padding: Pads, dilation: Pair, groups: int):
    if groups > 1:
        kernels = to_parts(kernel, groups)
        part: dict = dict(shape=(*shape[:3], kernels.shape[3]), stride=stride, padding=padding, dilation=dilation)
        return by_parts(functools.partial(_input_gradient, groups=1, **part), cotangent, kernels)
    reach = [(k - 1) * d for k, d in zip(kernel.shape, dilation)]
    lows = [r - low for r, (low, _) in zip(reach, padding)]
    spans = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:], stride)]
    pads = tuple((low, n + r - low - span) for n, r, low, span in zip(shape[1:], reach, lows, spans))
    # Transposed here: XLA leaves a convolution whose kernel has its outputs before its inputs to a slow loop.
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
    if stride == (1, 1):
        return isolated(_on_cpu, stride=stride, padding=pads, dilation=dilation, groups=1)(cotangent, kernel)
    return lax.conv_general_dilated(
        cotangent,
        kernel,
        window_strides=(1, 1),
        padding=pads,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _kernel_gradient(x, cotangent, *, shape, groups: int, **window):
    if groups == 1 and shape[2] * shape[3] > _SMALL_KERNEL and _by_winograd(x, shape, **window):
        return isolated(_winograd.kernel_gradient, padding=window["padding"])(x, cotangent)
    if groups == 1 and cotangent.shape[1] * cotangent.shape[2] < _MANY_PIXELS:
        x = padded(x, window.pop("padding"))
        return isolated(_kernel_gradient_by_patches, shape=shape, **window)(x, cotangent)
    parts = groups // groups_in_part(shape[2], groups)
    part = *shape[:2], x.shape[3] // parts, shape[3] // parts
    kernels = isolated(_kernel_gradients_by_image, parts=parts, shape=part, **window)(x, cotangent)
    return from_parts(kernels, shape[2], groups)


def _kernel_gradient_by_patches(x, cotangent, *, shape, **window):
    """All patches of the padded image, a row each, times the cotangent."""
    patches = _patches(x, shape[:2], size=cotangent.shape[1:3], **window)
    rows = patches.reshape(-1, patches.shape[-1]), cotangent.reshape(-1, shape[-1])
    product = lax.dot_general(*rows, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return product.reshape(shape).astype(x.dtype)


def _kernel_gradients_by_image(x, cotangent, *, parts: int, shape, stride: Pair, padding: Pads, dilation: Pair):
    """The gradients `(parts, *shape)` of the kernels that each serve their part of the channels.

    An image at a time, pixels times cotangent, so that their copies stay within the processor's cache. With channels
    first and each image's pixels in one row, what a kernel position meets is a slice of that row: padded to the width
    of the longest slice, the cotangent has zeros where a row of pixels ends. Under a stride there is a row for each of
    its phases; what phases meet at the same offset is one slice, for XLA compiles each by itself. Either the slices for
    all positions are multiplied by the cotangent, or those for the kernel's rows by the cotangents shifted for its
    columns: whichever is less to copy.
    """
    (height, width, channels, features), (out_height, out_width) = shape, cotangent.shape[1:3]
    down, right = ([(i * d // s, i * d % s) for i in range(k)] for k, d, s in zip(shape, dilation, stride))
    columns = out_width + right[-1][0]
    rows = out_height + down[-1][0] + 1  # a spare one, that the last slices reach into
    pads = [
        (before, count * s - n - before, 0)
        for (before, _), count, s, n in zip(padding, (rows, columns), stride, x.shape[1:3])
    ]
    # Of each product the slices, by their offset and phases in both directions, and the shifts.
    products = [([(i, j) for i in _runs(down) for j in _runs(right)], [0])]
    if height * channels + width * features < height * width * channels + features:
        shifts = {phase: [offset for offset, p in right if p == phase] for _, phase in right}
        products = [([(i, (0, range(p, p + 1))) for i in _runs(down)], offsets) for p, offsets in shifts.items()]

    def of_one(totals, image_and_cotangent):
        image, cotangent = image_and_cotangent
        image = lax.pad(image.transpose(2, 0, 1), jnp.zeros((), x.dtype), [(0, 0, 0), *pads])
        image = image.reshape(parts, channels, rows, stride[0], columns, stride[1]).transpose(0, 3, 5, 1, 2, 4)
        image = image.reshape(parts, *stride, channels, -1)
        cotangent = padded(cotangent[None], ((0, 0), (0, columns - out_width)), stored=True)[0]
        cotangent = cotangent.reshape(-1, parts, features).swapaxes(0, 1)

        def product(slices, shifts):
            reach = shifts[-1]
            size = cotangent.shape[1] + reach
            pixels = []
            for (a, ps), (b, qs) in slices:
                start = a * columns + b
                pixels.append(image[:, ps.start : ps.stop, qs.start : qs.stop, :, start : start + size])
            shifted = [jnp.pad(cotangent, ((0, 0), (by, reach - by), (0, 0))) for by in shifts]
            operands = jnp.concatenate([p.reshape(parts, -1, size) for p in pixels], 1), jnp.concatenate(shifted, 2)
            return jnp.matmul(*operands, preferred_element_type=jnp.float32)

        return [total + product(*which) for total, which in zip(totals, products)], None

    # What the rows of each product's result stand for.
    met = [[((a, p), (b, q)) for (a, ps), (b, qs) in slices for p in ps for q in qs] for slices, _ in products]
    sizes = [(len(where) * channels, len(shifts) * features) for where, (_, shifts) in zip(met, products)]
    totals, _ = lax.scan(of_one, [jnp.zeros((parts, *size), jnp.float32) for size in sizes], (x, cotangent))
    totals = [total.reshape(parts, -1, channels, len(w[1]), features) for total, w in zip(totals, products)]
    kernels = jnp.concatenate([t.swapaxes(2, 3).reshape(parts, -1, channels, features) for t in totals], 1)
    found = [(i, (b + by, q)) for where, (_, shifts) in zip(met, products) for i, (b, q) in where for by in shifts]
    order = [found.index((i, j)) for i in down for j in right]
    if order != sorted(order):
        kernels = kernels[:, np.array(order)]
    return kernels.reshape(parts, *shape).astype(x.dtype)


def _runs(positions: Sequence[Pair]) -> list[tuple[int, range]]:
    """Positions, each an offset and a phase, as offsets and the phases that follow one another there."""
    runs: list[tuple[int, range]] = []
    for offset, phase in positions:
        if runs and runs[-1] == (offset, range(runs[-1][1].start, phase)):
            runs[-1] = offset, range(runs[-1][1].start, phase + 1)
        else:
            runs.append((offset, range(phase, phase + 1)))
    return runs


convolution = bilinear(
    "convolution",
    xla_convolution,
    on_cpu=_on_cpu,
    input_gradient=_input_gradient,
    kernel_gradient=_kernel_gradient,
)
