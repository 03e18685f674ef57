"""The blocks that EfficientNet's relatives have beside `flaim_core`'s mobile blocks."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Float

from flaim_core import Scope, batch_norm, conditional_conv, conv, depthwise_separable, kernel, linear, mbconv, ops


@kernel
def conditional_mbconv(
    scope: Scope, x: Float[Array, "b h w c"], features: int, *, num_experts: int, **options
) -> Float[Array, "b h2 w2 f"]:
    """MBConv whose kernels are, for each image, a weighted sum of `num_experts` kernels.

    A linear layer (`routing_fn`) on the input's mean gives the weights.
    """
    routing = jax.nn.sigmoid(linear(scope["routing_fn"], ops.global_avg_pool(x), num_experts))
    return mbconv(scope, x, features, convolution=partial(conditional_conv, routing=routing), **options)


@kernel
def space_to_depth_separable(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    se_ratio: float,
    norm: Callable = batch_norm,
    act: Callable = jax.nn.silu,
    **options,
) -> Float[Array, "b h2 w2 f"]:
    """A depthwise-separable block after a 2x2 convolution that halves the map and makes it four times wider.

    The depthwise kernel is 2x2, which covers 4x4 pixels of the input; `se_ratio` is relative to the block's input.
    """
    x = conv(scope["conv_s2d"], x, 4 * x.shape[-1], kernel_size=2, stride=2, padding="same", bias=False)
    x = act(norm(scope["bn_s2d"], x))
    options |= {"kernel_size": 2, "padding": "same", "se_ratio": se_ratio / 4}
    return depthwise_separable(scope, x, features, norm=norm, act=act, **options)
