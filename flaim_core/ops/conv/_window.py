"""`Window`: stride, padding, dilation and groups of a convolution; and XLA's convolution."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import lax
from jaxtyping import Array, Float

from flaim_core.ops._views import Pads, Pair, Sizes

Shape = tuple[int, ...]


class Window(NamedTuple):
    """The options of a convolution.

    Attributes:
        stride: Vertical and horizontal.
        padding: ((top, bottom), (left, right)), in pixels.
        dilation: Vertical and horizontal.
        groups: Number of groups of channels.
    """

    stride: Pair = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether stride and dilation are 1."""
        return self.stride == self.dilation == (1, 1)

    @property
    def is_unpadded(self) -> bool:
        """Whether there is no padding."""
        return self.padding == ((0, 0), (0, 0))

    def output_size(self, size: Sequence[Any], kernel_size: Sequence[int]) -> Sizes:
        """Height and width of the output for images of `size` (height, width)."""
        height, width = (
            (n + low + high - (k - 1) * d - 1) // s + 1
            for n, k, s, (low, high), d in zip(size, kernel_size, self.stride, self.padding, self.dilation)
        )
        return height, width


def xla_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c_group f"], *, window: Window
) -> Float[Array, "b h2 w2 f"]:
    """XLA's convolution of channels-last images."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=window.groups,
    )
