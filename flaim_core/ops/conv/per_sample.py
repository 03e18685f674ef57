"""Convolution of each image in a batch with its own kernel."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core.lowering import for_single_cpu
from flaim_core.ops._broadcast import merge_axes, split_axis
from flaim_core.ops._views import Pads, Pair, pad, shifted_views
from flaim_core.ops.conv import conv
from flaim_core.ops.conv._window import Window


def conv_per_sample(
    x: Float[Array, "b h w c"],
    kernels: Float[Array, "b kh kw c_group f"],
    *,
    stride: Pair = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    groups: int = 1,
) -> Float[Array, "b h2 w2 f"]:
    """`conv` of each image with its own kernel."""
    if for_single_cpu(x, kernels):
        convolve = functools.partial(conv, stride=stride, padding=padding, groups=groups)
        return jax.vmap(lambda image, kernel: convolve(image[None], kernel)[0])(x, kernels)
    return _sum_of_products(x, kernels, Window(stride, padding, groups=groups))


def _sum_of_products(x: Array, kernels: Array, window: Window) -> Array:
    """The convolutions as a sum, over kernel positions, of products of a shifted view and the weights there.

    `jax.vmap` would turn the batch axis into groups of channels of one convolution. If the batch is sharded, each
    device would then need all images.
    """
    _, height, width, per_group, features = kernels.shape
    size = window.output_size(x.shape[1:3], (height, width))
    views = shifted_views(
        pad(x, window.padding), (height, width), stride=window.stride, dilation=window.dilation, size=size
    )

    def product(pixels: Array, kernel: Array) -> Array:
        if per_group == 1:
            return jnp.repeat(pixels, features // window.groups, axis=-1) * kernel[:, None]
        in_groups = split_axis(pixels, 3, per_group), split_axis(kernel, 2, features // window.groups)
        return merge_axes(jnp.einsum("bhwgi,bigo->bhwgo", *in_groups), 3)

    return functools.reduce(jnp.add, (product(pixels, kernels[:, i, j]) for i, j, pixels in views))
