"""Convolution and depthwise convolution as bilinear primitives.

    output            x (b, h, w, c), kernel (kh, kw, c_group, f)            -> y (b, h2, w2, f)
    input gradient    cotangent (b, h2, w2, f), kernel                       -> (b, h, w, c)
    kernel gradient   x, cotangent                                           -> (kh, kw, c_group, f)

Each has an implementation for CPUs, in `rules` and `depthwise`. Automatic differentiation of the first would instead
save every shifted view as a residual, and XLA would fuse surrounding operations into the gradients.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core.ops._bilinear import bilinear
from flaim_core.ops.conv import depthwise as _depthwise
from flaim_core.ops.conv import rules
from flaim_core.ops.conv._window import Window, xla_convolution


def _output_shape(x: Any, kernel: Any, *, window: Window) -> tuple[int, ...]:
    return x.shape[0], *window.output_size(x.shape[1:3], kernel.shape[:2]), kernel.shape[-1]


convolution, convolution_p = bilinear(
    "convolution",
    xla_convolution,
    shape=_output_shape,
    on_cpu=rules.forward,
    input_gradient=rules.input_gradient,
    kernel_gradient=rules.kernel_gradient,
)


def _depthwise_xla(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c"], *, window: Window) -> Array:
    return xla_convolution(x, kernel[:, :, None], window=window._replace(groups=x.shape[-1]))


def _depthwise_batch(bind: Any, operands: tuple, dims: tuple, *, window: Window) -> tuple[Array, int]:
    """The rule for `jax.vmap`: merge the mapped axis with the batch or, if kernels are mapped, with the channels."""
    (x, kernel), (x_dim, kernel_dim) = operands, dims
    if kernel_dim is None:
        x = jnp.moveaxis(x, x_dim, 0)
        y = bind(x.reshape(-1, *x.shape[2:]), kernel, window=window)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    kernel = jnp.moveaxis(kernel, kernel_dim, 2)
    n, channels = kernel.shape[2:]
    across = (*x.shape[:3], n, channels)
    x = jnp.broadcast_to(x[:, :, :, None], across) if x_dim is None else jnp.moveaxis(x, x_dim, 3)
    y = bind(x.reshape(*x.shape[:3], -1), kernel.reshape(*kernel.shape[:2], -1), window=window)
    return y.reshape(*y.shape[:3], n, channels), 3


depthwise, depthwise_p = bilinear(
    "depthwise_convolution",
    _depthwise_xla,
    shape=_output_shape,
    on_cpu=_depthwise.forward,
    input_gradient=_depthwise.input_gradient,
    kernel_gradient=_depthwise.kernel_gradient,
    batch=_depthwise_batch,
)
