from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import require_fixed
from flaim_core.layers._conv import conv
from flaim_core.layers._norm import layer_norm
from flaim_core.leaf import Init
from flaim_core.scope import Scope, kernel


@kernel
def recursive_gated_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    order: int = 5,
    mix: Callable | None = None,
    scale: float = 1 / 3,
    kernel_init: Init = initializers.he_normal_fan_out,
) -> Float[Array, "b h w c"]:
    """Products of up to `order` mixtures of neighbouring pixels, each as wide as two of the one before.

    Paths: `proj_in`, `proj_out` and `pws`, 1x1 convolutions; `dwconv`, a depthwise 7x7 convolution, or the kernel `mix`
    in its place, such as `global_local_filter`. Its output is multiplied by `scale`. Raises ValueError if the width
    cannot be halved `order - 1` times.
    Rao et al., "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions" (2022), section 3.
    """
    dim = x.shape[-1]
    if order < 1 or dim % 2 ** (order - 1):
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} cannot be halved {order - 1} times, for order {order}")
    widths = [dim >> i for i in reversed(range(order))]
    y = conv(scope["proj_in"], x, 2 * dim, kernel_size=1, kernel_init=kernel_init)
    x, y = y[..., : widths[0]], y[..., widths[0] :]
    if mix is None:
        y = conv(scope["dwconv"], y, y.shape[-1], kernel_size=7, groups=y.shape[-1], kernel_init=kernel_init)
    else:
        y = mix(scope["dwconv"], y)
    first, *others = jnp.split(y * scale, np.cumsum(widths)[:-1], axis=-1)
    x = x * first
    for i, gate in enumerate(others):
        x = conv(scope["pws"][i], x, gate.shape[-1], kernel_size=1, kernel_init=kernel_init) * gate
    return conv(scope["proj_out"], x, dim, kernel_size=1, kernel_init=kernel_init)


def _stretched(x: Array, axis: int, size: int) -> Array:
    """Linear interpolation along `axis` to `size` numbers, the first and the last of which stay where they are."""
    position = np.linspace(0, x.shape[axis] - 1, size)
    low = np.maximum(np.ceil(position).astype(np.int32) - 1, 0)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = jnp.asarray((position - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)]), x.dtype)
    before, after = (jnp.take(x, index, axis, mode="clip") for index in (low, high))
    return before + share * (after - before)


@kernel
def global_local_filter(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    size: tuple[int, int],
    norm: Callable = layer_norm,
    kernel_init: Init = initializers.he_normal_fan_out,
) -> Float[Array, "b h w c"]:
    """A depthwise 3x3 convolution of the first half of the channels, and for the rest a circular one of the map's size.

    Leaf: `complex_weight` (c / 2, *size, 2), the real and imaginary parts of the large filter's Fourier transform.
    Paths: `pre_norm`, `dw`, `post_norm`. The output's channels alternate between the two halves. `size` is (height,
    width // 2 + 1) of the map for which the filter is made; for other maps its transform is interpolated bilinearly,
    corner to corner. The Fourier transforms are in float32 or wider. jax2onnx cannot convert them.
    Rao et al., "HorNet" (2022), section 3.3, after "Global Filter Networks for Image Classification" (2021).
    """
    height, width, dim = x.shape[1:]
    require_fixed(scope, "complex_weight", (height, width))
    if dim % 2:
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} does not divide into two halves")
    x = norm(scope["pre_norm"], x)
    near, far = x[..., : dim // 2], x[..., dim // 2 :]
    near = conv(scope["dw"], near, dim // 2, kernel_size=3, groups=dim // 2, bias=False, kernel_init=kernel_init)
    far = jnp.moveaxis(ops.at_least_float32(far), 3, 1)
    init = initializers.truncated_normal(0.02)
    weight = scope.param("complex_weight", (dim // 2, *size, 2), init, dtype=far.dtype)
    for axis, n in ((1, height), (2, width // 2 + 1)):
        weight = weight if weight.shape[axis] == n else _stretched(weight, axis, n)
    far = jnp.moveaxis(ops.spectral_filter(far, weight[..., 0], weight[..., 1]), 1, 3).astype(near.dtype)
    return norm(scope["post_norm"], ops.merge_axes(jnp.stack([near, far], axis=-1), 3))
