"""Which way of computing a convolution, or one of its gradients, is the fastest on this CPU?

Times XLA's convolution, the way that `flaim_core/ops/conv/rules.py` takes, and the other possible ways, for the cases
from which the limits in that file were chosen. `python -m benchmarks.ops.convolution`
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.ops._turns import array, milliseconds, show
from flaim_core import ops
from flaim_core.ops.conv import depthwise, grouped, patches, rules, winograd
from flaim_core.ops.conv._window import Window, xla_convolution


class Case(NamedTuple):
    """A convolution of `batch` square images."""

    size: int
    channels: int
    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    batch: int = 8

    def __str__(self) -> str:
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        steps = f", stride {self.stride}" if self.stride > 1 else ""
        images = f", {self.batch} images" if self.batch != 8 else ""
        kernel, size = f"{self.kernel}x{self.kernel}", f"{self.size}x{self.size}"
        return f"{kernel}{steps}{groups}, {size}, {self.channels} to {self.features}{images}"

    @property
    def window(self) -> Window:
        low = (self.kernel - 1) // 2
        pads = (low, self.kernel - 1 - low) if self.kernel > self.stride else (0, 0)
        return Window((self.stride, self.stride), (pads, pads), (1, 1), self.groups)

    @property
    def arrays(self) -> tuple[jax.Array, jax.Array]:
        x = array(self.batch, self.size, self.size, self.channels)
        return x, array(self.kernel, self.kernel, self.channels // self.groups, self.features, seed=1)


DEPTHWISE = [Case(56, 96, 96, 7, groups=96), Case(56, 144, 144, 3, groups=144), Case(112, 96, 96, 3, 2, groups=96)]
GROUPED = [Case(28, 256, 256, 3, groups=32), Case(56, 128, 128, 3, groups=32), Case(14, 512, 512, 3, groups=32)]
DENSE = [
    Case(56, 64, 256, 1),
    Case(224, 3, 96, 4, 4),
    Case(224, 3, 32, 3, 2, batch=4),
    Case(224, 3, 64, 3, 2, batch=4),
    Case(224, 3, 64, 7, 2),
    Case(56, 64, 64, 3),
    Case(28, 128, 128, 3),
    Case(14, 256, 256, 3),
    Case(7, 512, 512, 3),
    Case(7, 512, 512, 3, batch=1),
]


def forward(case: Case) -> dict[str, float]:
    """The convolution itself."""
    x, kernel = case.arrays
    window = case.window
    options = window._asdict()
    ways = {
        "XLA": functools.partial(xla_convolution, window=window),
        "flaim": functools.partial(ops.conv, **options),
    }
    if case.groups == 1 and case.kernel > 1:
        ways["patches"] = functools.partial(patches.forward_padded_first, window=window)
        if window.is_plain and case.kernel == 3 and case.channels >= 32:
            ways["Winograd"] = functools.partial(winograd.forward, window=window)
    elif case.groups == case.channels:
        ways["shifted views, fused"] = lambda x, k: depthwise._shifted_products(
            jnp.pad(x, ((0, 0), *window.padding, (0, 0))),
            k[:, :, 0],
            size=window.output_size(x.shape[1:3], k.shape[:2]),
            stride=window.stride,
            dilation=window.dilation,
        )
    return milliseconds(ways, x, kernel)


def kernel_gradient(case: Case) -> dict[str, float]:
    """The kernel gradient."""
    x, kernel = case.arrays
    window, shape = case.window, kernel.shape
    y = array(*jax.eval_shape(functools.partial(xla_convolution, window=window), x, kernel).shape, seed=2)

    def by_xla(x, y):
        return jax.linear_transpose(lambda k: xla_convolution(x, k, window=window), kernel)(y)[0]

    if case.groups == case.channels:
        own = functools.partial(depthwise.kernel_gradient, shape=(*shape[:2], shape[3]), window=window)
        return milliseconds({"XLA": by_xla, "flaim": lambda x, y: own(x, y)[:, :, None]}, x, y)
    ways = {"XLA": by_xla, "flaim": functools.partial(rules.kernel_gradient, shape=shape, window=window)}
    by_image = functools.partial(rules._kernel_gradient_by_image, shape=shape, window=window)
    ways["image by image"] = by_image
    if case.groups == 1:
        ways["patches"] = functools.partial(rules._kernel_gradient_by_patches, shape=shape, window=window)
        if window.is_plain and case.kernel == 3:
            ways["Winograd"] = functools.partial(winograd.kernel_gradient, padding=window.padding)
    return milliseconds(ways, x, y)


def parts_of_groups(case: Case) -> dict[str, float]:
    """A grouped convolution as dense convolutions of 32, 64 or 128 input channels."""
    x, kernel = case.arrays
    part = functools.partial(xla_convolution, window=case.window._replace(groups=1))

    def with_width(width):
        def convolve(x, kernel):
            grouped._WIDTH = width
            return grouped.by_parts(part, x, grouped.to_parts(kernel, case.groups))

        return convolve

    usual = grouped._WIDTH
    try:
        return milliseconds({f"{width} channels": with_width(width) for width in (32, 64, 128)}, x, kernel)
    finally:
        grouped._WIDTH = usual


if __name__ == "__main__":
    show("Forward", {str(case): forward(case) for case in DEPTHWISE + GROUPED + DENSE})
    show("Gradient for the kernel", {str(case): kernel_gradient(case) for case in DEPTHWISE + GROUPED + DENSE[4:9]})
    show("Width of a group's dense parts", {str(case): parts_of_groups(case) for case in GROUPED})
