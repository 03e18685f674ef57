"""Mobile convolution blocks: depthwise separable, inverted bottleneck (MBConv), fused inverted bottleneck."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._channel_attention import squeeze_excite
from flaim_core.layers._conv import conv
from flaim_core.layers._drop import drop_path
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel

_squeeze_excite = partial(squeeze_excite, names=("conv_reduce", "conv_expand"))


def round_features(features: float, multiple: int = 8, *, at_least: float = 0.9) -> int:
    """`features` rounded to the nearest multiple of `multiple`; rounded up if that is less than `at_least * features`.

    The rounding of all networks that are scaled in width. Sandler et al., "MobileNetV2" (2018), the authors' code.
    """
    rounded = max(multiple, int(features + multiple / 2) // multiple * multiple)
    return rounded if rounded >= at_least * features else rounded + multiple


@kernel
def mbconv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    expand_ratio: float = 4,
    kernel_size: int | tuple[int, ...] = 3,
    stride: int = 1,
    group_size: int = 1,
    se_ratio: float = 0.25,
    residual: bool = True,
    expand_kernel_size: int | tuple[int, ...] = 1,
    project_kernel_size: int | tuple[int, ...] = 1,
    padding: int | tuple | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    act: Callable = jax.nn.silu,
    norm_act: Callable | None = None,
    channel_attention: Callable = _squeeze_excite,
    convolution: Callable = conv,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """MBConv, the inverted residual bottleneck: expansion, depthwise convolution, channel attention, projection.

    1x1 convolution (`conv_pw`, `bn1`) to `expand_ratio` times the input's width, rounded to a multiple of 8; depthwise
    convolution (`conv_dw`, `bn2`); channel attention (`se`); 1x1 convolution without activation (`conv_pwl`, `bn3`);
    plus the input if it has the output's shape. Sandler et al., "MobileNetV2" (2018); with squeeze-and-excitation, Tan
    et al., "MnasNet" (2019), and Tan and Le, "EfficientNet" (2019).

    Args:
        group_size: Channels in a group of the middle convolution: 1 for a depthwise one.
        se_ratio: Hidden width of the channel attention, as a fraction of the block's input width; 0 for none.
        residual: Add the input if the stride is 1 and the output is as wide as the input.
        padding: Of the middle convolution, as `conv` takes it.
        norm: A kernel `(scope, x)`.
        act: A function, applied after all norms but the last.
        norm_act: A kernel `(scope, x)` that replaces `norm` followed by `act`.
        channel_attention: A kernel `(scope, x, *, hidden, act)`.
        convolution: A kernel with `conv`'s arguments, for all convolutions of the block. Kernel sizes may have any form
            that it takes.
        anti_alias: A function that halves a map. If the stride is not 1, the convolution then has stride 1, and this
            function is applied after it.
    """
    activate = norm_act or _compose(norm, act)
    blur = anti_alias if stride > 1 else None
    hidden = round_features(expand_ratio * x.shape[-1])

    y = convolution(scope["conv_pw"], x, hidden, kernel_size=expand_kernel_size, bias=False)
    y = activate(scope["bn1"], y)
    y = convolution(
        scope["conv_dw"],
        y,
        hidden,
        kernel_size=kernel_size,
        stride=1 if blur else stride,
        padding=padding,
        groups=hidden // group_size,
        bias=False,
        kernel_init=initializers.he_normal,
    )
    y = activate(scope["bn2"], y)
    y = blur(y) if blur else y
    if se_ratio:
        y = channel_attention(scope["se"], y, hidden=_squeezed(x, se_ratio), act=act)
    y = norm(scope["bn3"], convolution(scope["conv_pwl"], y, features, kernel_size=project_kernel_size, bias=False))
    return _add_input(scope, x, y, residual and stride == 1, drop_path_rate)


@kernel
def fused_mbconv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    expand_ratio: float = 4,
    kernel_size: int = 3,
    stride: int = 1,
    group_size: int | None = None,
    se_ratio: float = 0.0,
    residual: bool = True,
    padding: int | tuple | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    act: Callable = jax.nn.silu,
    norm_act: Callable | None = None,
    channel_attention: Callable = _squeeze_excite,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """MBConv whose expansion and depthwise convolution are one dense convolution; faster on large maps.

    Convolution (`conv_exp`, `bn1`) to `expand_ratio` times the input's width; channel attention (`se`); 1x1 convolution
    without activation (`conv_pwl`, `bn2`); plus the input if it has the output's shape. `group_size` is the number of
    output channels in a group of the first convolution, None for one group; the other options are `mbconv`'s.
    Gupta and Tan, "EfficientNet-EdgeTPU" (2019); Tan and Le, "EfficientNetV2" (2021).
    """
    activate = norm_act or _compose(norm, act)
    blur = anti_alias if stride > 1 else None
    hidden = round_features(expand_ratio * x.shape[-1])

    y = conv(
        scope["conv_exp"],
        x,
        hidden,
        kernel_size=kernel_size,
        stride=1 if blur else stride,
        padding=padding,
        groups=hidden // group_size if group_size else 1,
        bias=False,
    )
    y = activate(scope["bn1"], y)
    y = blur(y) if blur else y
    if se_ratio:
        y = channel_attention(scope["se"], y, hidden=_squeezed(x, se_ratio), act=act)
    y = norm(scope["bn2"], conv(scope["conv_pwl"], y, features, kernel_size=1, bias=False))
    return _add_input(scope, x, y, residual and stride == 1, drop_path_rate)


@kernel
def depthwise_separable(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    stride: int = 1,
    group_size: int = 1,
    depth_multiplier: int = 1,
    se_ratio: float = 0.0,
    residual: bool = True,
    activate_output: bool = False,
    padding: int | tuple | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    act: Callable = jax.nn.silu,
    norm_act: Callable | None = None,
    channel_attention: Callable = _squeeze_excite,
    convolution: Callable = conv,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Depthwise convolution (`conv_dw`, `bn1`), then a 1x1 one (`conv_pw`, `bn2`): MBConv without its expansion.

    Channel attention (`se`) is between the two. The first has `depth_multiplier` output channels per input channel.
    `activate_output` adds an activation after the second, as in MobileNetV1. The other options are `mbconv`'s.
    Howard et al., "MobileNets" (2017).
    """
    activate = norm_act or _compose(norm, act)
    blur = anti_alias if stride > 1 else None

    y = convolution(
        scope["conv_dw"],
        x,
        depth_multiplier * x.shape[-1],
        kernel_size=kernel_size,
        stride=1 if blur else stride,
        padding=padding,
        groups=x.shape[-1] // group_size,
        bias=False,
        kernel_init=initializers.he_normal,
    )
    y = activate(scope["bn1"], y)
    y = blur(y) if blur else y
    if se_ratio:
        y = channel_attention(scope["se"], y, hidden=_squeezed(x, se_ratio), act=act)
    y = conv(scope["conv_pw"], y, features, kernel_size=1, bias=False)
    y = (activate if activate_output else norm)(scope["bn2"], y)
    return _add_input(scope, x, y, residual and stride == 1, drop_path_rate)


@kernel
def conv_norm_act(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    residual: bool = False,
    padding: int | tuple | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    act: Callable = jax.nn.silu,
    norm_act: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution (`conv`), norm (`bn1`) and activation; with `residual` plus the input if it has the output's shape.

    The options are `mbconv`'s.
    """
    blur = anti_alias if stride > 1 else None
    stride_now = 1 if blur else stride
    y = conv(scope["conv"], x, features, kernel_size=kernel_size, stride=stride_now, padding=padding, bias=False)
    y = (norm_act or _compose(norm, act))(scope["bn1"], y)
    y = blur(y) if blur else y
    return _add_input(scope, x, y, residual and stride == 1, drop_path_rate)


def _compose(norm: Callable, act: Callable) -> Callable:
    return lambda scope, x: act(norm(scope, x))


def _squeezed(x: Array, ratio: float) -> int:
    return max(1, round(ratio * x.shape[-1]))


def _add_input(scope: Scope, x: Array, y: Array, residual: bool, rate: float) -> Array:
    """`x + drop_path(y)`; `y` alone without `residual` or if the widths differ."""
    if not residual or x.shape[-1] != y.shape[-1]:
        return y
    return x + drop_path(scope["drop_path"], y, rate)
