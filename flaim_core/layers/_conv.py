from typing import Literal

from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.leaf import Init
from flaim_core.scope import Scope, kernel


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """`value` as a pair: a single number is repeated."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def resolve_padding(padding, size, kernel_size, stride, dilation=(1, 1)) -> ops.Pads:
    """((top, bottom), (left, right)) from any form of padding that `conv` takes."""
    if padding == "same":
        return ops.same_padding(size, kernel_size, stride, dilation)
    if padding is None:
        vertical, horizontal = ((s - 1 + d * (k - 1)) // 2 for k, s, d in zip(kernel_size, stride, dilation))
    else:
        vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    return pair(vertical), pair(horizontal)


@kernel
def conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple | Literal["same"] | None = None,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Init = initializers.he_normal_fan_out,
    bias_init: Init = initializers.zeros,
) -> Float[Array, "b h2 w2 f"]:
    """Two-dimensional convolution. Leaves: `kernel` (height, width, in / groups, out), `bias`.

    `padding` in pixels: a number, (vertical, horizontal), ((top, bottom), (left, right)), TensorFlow's `"same"`, or
    None for `(stride - 1 + dilation * (kernel_size - 1)) // 2` on each side, which keeps an odd kernel centred.
    Raises ValueError if `groups` does not divide both widths, or the kernel is larger than the padded map.
    """
    where = "/".join(scope.path)
    if groups < 1 or features < 1 or x.shape[-1] % groups or features % groups:
        raise ValueError(f"{where}: {groups} groups do not divide {x.shape[-1]} channels into {features} features")
    kernel_size, stride, dilation = pair(kernel_size), pair(stride), pair(dilation)
    weight = scope.param("kernel", (*kernel_size, x.shape[-1] // groups, features), kernel_init, layout="hwio")
    pads = resolve_padding(padding, (x.shape[1], x.shape[2]), kernel_size, stride, dilation)
    ops.check_fits((x.shape[1], x.shape[2]), kernel_size, pads, dilation, where=where)
    y = ops.conv(x, weight, stride=stride, padding=pads, dilation=dilation, groups=groups)
    return y + ops.per_channel(scope.param("bias", (features,), bias_init), y) if bias else y
