"""How a CPU computes a convolution and its two gradients.

There is a table of rules for each of the three. A rule is an implementation and the condition under which it is the
fastest; the first rule whose condition holds is used. `benchmarks/ops/convolution.py` measures the limits,
`docs/performance.md` has the results.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._no_inline import no_inline
from flaim_core.ops._views import Pair, pad
from flaim_core.ops.conv import grouped, patches, winograd
from flaim_core.ops.conv._window import Shape, Window, xla_convolution

# A product of patches is the fastest for a narrow convolution, such as the 3x3 of a stem with 3 input and 32 output
# channels: at most so many numbers in a patch (kh * kw * c), and at most so many output channels.
_NARROW = 32
# It is also for a large kernel on few pixels: at least so many numbers in the kernel (kh * kw * c * f), and at most so
# many output pixels in the batch (b * h2 * w2).
_LARGE_KERNEL, _FEW_PIXELS = 2**20, 392
# Kernel gradients use Winograd's algorithm only for more than so many pairs of input and output channels (c * f).
_SMALL_KERNEL = 64 * 64
# All other kernel gradients are computed image by image from so many output pixels of an image (h2 * w2) on.
_MANY_PIXELS = 400


class Case(NamedTuple):
    """What the conditions of rules depend on.

    Attributes:
        x: Shape of the images (b, h, w, c).
        kernel: Shape of the kernel (kh, kw, c_group, f).
        window: Stride, padding, dilation, groups.
        dtype: Of both.
    """

    x: Shape
    kernel: Shape
    window: Window
    dtype: jax.numpy.dtype

    @property
    def output(self) -> Pair:
        """Height and width of the output."""
        return self.window.output_size(self.x[1:3], self.kernel[:2])

    @property
    def pixels(self) -> int:
        """Output pixels of an image, h2 * w2."""
        return math.prod(self.output)


class Rule(NamedTuple):
    """A name, a condition, and the implementation that is used if it holds."""

    name: str
    applies: Callable[[Case], bool]
    run: Callable[..., Array]


def _select(rules: Sequence[Rule], case: Case) -> Callable[..., Array]:
    return next(rule.run for rule in rules if rule.applies(case))


def _always(case: Case) -> bool:
    return True


def _is_grouped(case: Case) -> bool:
    return case.window.groups > 1


def _suits_winograd(case: Case) -> bool:
    return case.window.is_plain and winograd.serves(case.x, case.kernel, case.window.padding, case.dtype)


# The output, from images and a kernel.


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c_group f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The convolution."""
    return _select(FORWARD, Case(x.shape, kernel.shape, window, x.dtype))(x, kernel, window=window)


def _is_narrow(case: Case) -> bool:
    return math.prod(case.kernel[:3]) <= _NARROW and case.kernel[3] <= _NARROW


def _is_large_on_few_pixels(case: Case) -> bool:
    return case.x[0] * case.pixels <= _FEW_PIXELS and math.prod(case.kernel) >= _LARGE_KERNEL


def _grouped(x, kernel, *, window):
    part = functools.partial(forward, window=window._replace(groups=1))
    return grouped.by_parts(part, x, grouped.to_parts(kernel, window.groups))


FORWARD = (
    Rule("dense parts with block-diagonal kernels", _is_grouped, _grouped),
    Rule("Winograd's minimal filtering", _suits_winograd, winograd.forward),
    Rule("product of patches, fused padding", _is_narrow, patches.forward),
    Rule("product of patches, padding first", _is_large_on_few_pixels, patches.forward_padded_first),
    Rule("XLA's convolution", _always, xla_convolution),
)


# The gradient with respect to the images, from the output's cotangent and the kernel.


def input_gradient(
    cotangent: Float[Array, "b h2 w2 f"], kernel: Float[Array, "kh kw c_group f"], *, shape: Shape, window: Window
) -> Float[Array, "b h w c"]:
    """The gradient with respect to images of `shape`."""
    rule = _select(INPUT_GRADIENT, Case(shape, kernel.shape, window, cotangent.dtype))
    return rule(cotangent, kernel, shape=shape, window=window)


def _has_unit_stride(case: Case) -> bool:
    return case.window.stride == (1, 1)


def _grouped_input_gradient(cotangent, kernel, *, shape, window):
    kernels = grouped.to_parts(kernel, window.groups)
    of_part = (*shape[:3], kernels.shape[3])
    part = functools.partial(input_gradient, shape=of_part, window=window._replace(groups=1))
    return grouped.by_parts(part, cotangent, kernels)


def _transposed_kernel(cotangent, kernel, shape, window) -> tuple[Array, tuple[Pair, Pair]]:
    """The kernel and the padding of the transposed convolution.

    The kernel is rotated by 180 degrees, with input and output channels swapped: (kh, kw, f, c). With this padding its
    convolution with the cotangent, dilated by the stride, gives the gradient with respect to images of `shape`.
    """
    reach = [(k - 1) * d for k, d in zip(kernel.shape, window.dilation)]
    lows = [r - low for r, (low, _) in zip(reach, window.padding)]
    spans = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:], window.stride)]
    vertical, horizontal = ((low, n + r - low - span) for n, r, low, span in zip(shape[1:], reach, lows, spans))
    # Transposed here, not by dimension numbers (HWOI): for those XLA has only a slow generic loop.
    return kernel[::-1, ::-1].swapaxes(2, 3), (vertical, horizontal)


def _by_convolution(cotangent, kernel, *, shape, window):
    kernel, pads = _transposed_kernel(cotangent, kernel, shape, window)
    return no_inline(forward, window=Window(padding=pads, dilation=window.dilation))(cotangent, kernel)


def _by_dilated_convolution(cotangent, kernel, *, shape, window):
    kernel, pads = _transposed_kernel(cotangent, kernel, shape, window)
    return lax.conv_general_dilated(
        cotangent,
        kernel,
        window_strides=(1, 1),
        padding=pads,
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


INPUT_GRADIENT = (
    Rule("dense parts with block-diagonal kernels", _is_grouped, _grouped_input_gradient),
    Rule("convolution with the rotated kernel, by the rules above", _has_unit_stride, _by_convolution),
    Rule("XLA's convolution of the dilated cotangent", _always, _by_dilated_convolution),
)


# The gradient with respect to the kernel, from images and the output's cotangent.


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, shape: Shape, window: Window
) -> Float[Array, "kh kw c_group f"]:
    """The gradient with respect to a kernel of `shape`."""
    rule = _select(KERNEL_GRADIENT, Case(x.shape, shape, window, x.dtype))
    return rule(x, cotangent, shape=shape, window=window)


def _is_wide_and_suits_winograd(case: Case) -> bool:
    return not _is_grouped(case) and math.prod(case.kernel[2:]) > _SMALL_KERNEL and _suits_winograd(case)


def _is_dense_on_few_pixels(case: Case) -> bool:
    return not _is_grouped(case) and case.pixels < _MANY_PIXELS


def _winograd_kernel_gradient(x, cotangent, *, shape, window):
    return no_inline(winograd.kernel_gradient, padding=window.padding)(x, cotangent)


def _kernel_gradient_by_patches(x, cotangent, *, shape, window):
    gradient = no_inline(patches.kernel_gradient, shape=shape, window=window._replace(padding=((0, 0), (0, 0))))
    return gradient(pad(x, window.padding), cotangent)


def _kernel_gradient_by_image(x, cotangent, *, shape, window):
    parts = window.groups // grouped.groups_in_part(shape[2], window.groups)
    of_part = (*shape[:2], x.shape[3] // parts, shape[3] // parts)
    gradients = no_inline(patches.kernel_gradients_by_image, parts=parts, shape=of_part, window=window)(x, cotangent)
    return grouped.from_parts(gradients, shape[2], window.groups)


KERNEL_GRADIENT = (
    Rule("Winograd's minimal filtering", _is_wide_and_suits_winograd, _winograd_kernel_gradient),
    Rule("product of the patches of all images", _is_dense_on_few_pixels, _kernel_gradient_by_patches),
    Rule("image by image, in dense parts", _always, _kernel_gradient_by_image),
)
