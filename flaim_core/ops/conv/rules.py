"""How a CPU runs a convolution: one table for each of its three products; the first rule that applies is taken.

The limits were measured by `benchmarks/ops/convolution.py`; `docs/performance.md` has the figures.
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

# Numbers in a patch, and output channels, up to which a product of patches is worth making for a stem.
_NARROW = 32
# Output pixels of all images up to which it is for a large kernel, and how many numbers make a kernel large.
_FEW_PIXELS, _LARGE_KERNEL = 392, 2**20
# Output pixels of an image from which the kernel's gradient goes image by image.
_MANY_PIXELS = 400
# Input times output channels up to which that is faster than Winograd's gradient.
_SMALL_KERNEL = 64 * 64


class Case(NamedTuple):
    """One convolution: what its rules look at."""

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
        """Output pixels of an image."""
        return math.prod(self.output)


class Rule(NamedTuple):
    """A way to compute something, by its name, and when to take it."""

    name: str
    applies: Callable[[Case], bool]
    run: Callable[..., Array]


def _take(rules: Sequence[Rule], case: Case) -> Callable[..., Array]:
    return next(rule.run for rule in rules if rule.applies(case))


def _always(case: Case) -> bool:
    return True


def _is_grouped(case: Case) -> bool:
    return case.window.groups > 1


def _suits_winograd(case: Case) -> bool:
    return case.window.is_plain and winograd.serves(case.x, case.kernel, case.window.padding, case.dtype)


# The output, of images and a kernel.


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c_group f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """The convolution."""
    return _take(FORWARD, Case(x.shape, kernel.shape, window, x.dtype))(x, kernel, window=window)


def _is_narrow(case: Case) -> bool:
    return math.prod(case.kernel[:3]) <= _NARROW and case.kernel[3] <= _NARROW


def _is_brief(case: Case) -> bool:
    return case.x[0] * case.pixels <= _FEW_PIXELS and math.prod(case.kernel) >= _LARGE_KERNEL


def _grouped(x, kernel, *, window):
    part = functools.partial(forward, window=window._replace(groups=1))
    return grouped.by_parts(part, x, grouped.to_parts(kernel, window.groups))


FORWARD = (
    Rule("dense parts on block-diagonal kernels", _is_grouped, _grouped),
    Rule("Winograd's minimal filtering", _suits_winograd, winograd.forward),
    Rule("product of patches, padding fused", _is_narrow, patches.forward),
    Rule("product of patches, padding apart", _is_brief, patches.forward_apart),
    Rule("XLA's convolution", _always, xla_convolution),
)


# The gradient for the images, of the output's cotangent and the kernel.


def input_gradient(
    cotangent: Float[Array, "b h2 w2 f"], kernel: Float[Array, "kh kw c_group f"], *, shape: Shape, window: Window
) -> Float[Array, "b h w c"]:
    """The gradient for images of `shape`."""
    rule = _take(INPUT_GRADIENT, Case(shape, kernel.shape, window, cotangent.dtype))
    return rule(cotangent, kernel, shape=shape, window=window)


def _is_dense_in_steps_of_one(case: Case) -> bool:
    return case.window.stride == (1, 1)


def _grouped_input_gradient(cotangent, kernel, *, shape, window):
    kernels = grouped.to_parts(kernel, window.groups)
    of_part = (*shape[:3], kernels.shape[3])
    part = functools.partial(input_gradient, shape=of_part, window=window._replace(groups=1))
    return grouped.by_parts(part, cotangent, kernels)


def _turned(cotangent, kernel, shape, window) -> tuple[Array, tuple[Pair, Pair]]:
    """The kernel turned by 180 degrees, its inputs its outputs, and the padding with which it convolves a cotangent."""
    reach = [(k - 1) * d for k, d in zip(kernel.shape, window.dilation)]
    lows = [r - low for r, (low, _) in zip(reach, window.padding)]
    spans = [(n - 1) * s + 1 for n, s in zip(cotangent.shape[1:], window.stride)]
    vertical, horizontal = ((low, n + r - low - span) for n, r, low, span in zip(shape[1:], reach, lows, spans))
    # Transposed, and not by dimension numbers: XLA leaves a convolution whose kernel has its outputs before its inputs
    # to a slow loop.
    return kernel[::-1, ::-1].swapaxes(2, 3), (vertical, horizontal)


def _by_convolution(cotangent, kernel, *, shape, window):
    kernel, pads = _turned(cotangent, kernel, shape, window)
    return no_inline(forward, window=Window(padding=pads, dilation=window.dilation))(cotangent, kernel)


def _by_dilated_convolution(cotangent, kernel, *, shape, window):
    kernel, pads = _turned(cotangent, kernel, shape, window)
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
    Rule("dense parts on block-diagonal kernels", _is_grouped, _grouped_input_gradient),
    Rule("convolution with the turned kernel, by the rules above", _is_dense_in_steps_of_one, _by_convolution),
    Rule("XLA's convolution of the dilated cotangent", _always, _by_dilated_convolution),
)


# The gradient for the kernel, of images and the output's cotangent.


def kernel_gradient(
    x: Float[Array, "b h w c"], cotangent: Float[Array, "b h2 w2 f"], *, shape: Shape, window: Window
) -> Float[Array, "kh kw c_group f"]:
    """The gradient for a kernel of `shape`."""
    rule = _take(KERNEL_GRADIENT, Case(x.shape, shape, window, x.dtype))
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
    Rule("product of all images' patches", _is_dense_on_few_pixels, _kernel_gradient_by_patches),
    Rule("image by image, in dense parts", _always, _kernel_gradient_by_image),
)
