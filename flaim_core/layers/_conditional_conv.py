import math
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.layers._conv import pair, resolve_padding
from flaim_core.leaf import Init
from flaim_core.scope import Scope, kernel


@kernel
def conditional_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    routing: Float[Array, "b experts"],
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple | str | None = None,
    groups: int = 1,
    bias: bool = False,
    kernel_init: Init = initializers.he_normal_fan_out,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution with a kernel for each sample: a sum of the experts' kernels with the weights `routing`.

    Leaves: `kernel` (experts, out * in / groups * height * width), each expert's kernel flattened in this order, as in
    published checkpoints; `bias` (experts, out). Yang et al., "CondConv: Conditionally Parameterized
    Convolutions for Efficient Inference" (2019).
    """
    (height, width), stride = pair(kernel_size), pair(stride)
    shape, experts = (features, x.shape[-1] // groups, height, width), routing.shape[-1]
    kernels = scope.param("kernel", (experts, math.prod(shape)), _EachExpert(kernel_init, shape))
    kernels = ops.dense(routing, kernels).reshape(-1, *shape).transpose(0, 3, 4, 2, 1)
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), (height, width), stride)
    y = ops.conv_per_sample(x, kernels, stride=stride, padding=pads, groups=groups)
    if bias:
        y = y + ops.dense(routing, scope.param("bias", (experts, features), initializers.zeros))[:, None, None]
    return y


@dataclass(frozen=True)
class _EachExpert:
    """`kernel_init` for each expert's kernel, flattened; `shape` is (out, in / groups, height, width)."""

    kernel_init: Init
    shape: tuple[int, int, int, int]

    def __call__(self, key, experts_shape, dtype):
        features, channels, height, width = self.shape
        keys = jax.random.split(key, experts_shape[0])
        kernels = jax.vmap(lambda key: self.kernel_init(key, (height, width, channels, features), dtype))(keys)
        return kernels.transpose(0, 4, 3, 1, 2).reshape(experts_shape)
