"""The blocks of ResNets.

A residual branch is a kernel `(scope, x, features, **options)`. All branches take the same options: `stride`, `bias`
(of the convolutions), `norm`, `channel_attention` and `anti_alias`. Bottlenecks take four more: `groups`, `base_width`,
`first_reduction` and `stride_first`. They mean what they do in `resnet`.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import (
    Scope,
    conv,
    drop_path,
    initializers,
    kernel,
    ops,
    relu,
    round_features,
    selective_kernel,
    split_attention,
    squeeze_excite,
)


@kernel
def squeeze_excite_rounded(scope: Scope, x: Float[Array, "b h w c"], *, ratio: float = 1 / 16) -> Array:
    """Squeeze-and-excitation whose hidden width is `ratio` of the input's, rounded to a multiple of 8."""
    return squeeze_excite(scope, x, hidden=round_features(x.shape[-1] * ratio, at_least=0))


@kernel
def shortcut(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    average: bool,
    kernel_size: int,
    bias: bool,
    norm: Callable,
) -> Float[Array, "b h2 w2 f"]:
    """Projection shortcut: a strided convolution (paths 0, 1), or average pooling and a 1x1 one (paths 1, 2)."""
    if average:
        if stride > 1:
            x = ops.avg_pool(x, (2, 2), (stride, stride), ceil_mode=True, count_padding=False)
        return norm(scope[2], conv(scope[1], x, features, kernel_size=1, bias=bias))
    kernel_size = kernel_size if stride > 1 else 1
    return norm(scope[1], conv(scope[0], x, features, kernel_size=kernel_size, stride=stride, bias=bias))


@kernel
def basic(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-18 and 34: two 3x3 convolutions."""
    blur = anti_alias if stride > 1 else None
    y = conv(scope["conv1"], x, features, kernel_size=3, stride=1 if blur else stride, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = blur(y) if blur else y
    y = conv(scope["conv2"], y, features, kernel_size=3, bias=bias)
    y = norm(scope["bn2"], y, scale_init=initializers.zeros)
    return y if channel_attention is None else channel_attention(scope["se"], y)


def _width(features: int, groups: int, base_width: int) -> int:
    """The width of a bottleneck's middle: `groups` groups of `features / 4 * base_width / 64` channels."""
    return features // 4 * base_width // 64 * groups


@kernel
def bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    stride: int,
    groups: int,
    base_width: int,
    first_reduction: int,
    stride_first: bool,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNet-50 and deeper: 1x1, 3x3, 1x1 convolutions.

    The 3x3 one has `groups` groups of `features / 4 * base_width / 64` channels; SENet-154 narrows the first
    convolution by `first_reduction`. With `stride_first` the first convolution strides, as in the paper.
    """
    width = _width(features, groups, base_width)
    first, stride = (stride, 1) if stride_first else (1, stride)
    blur = anti_alias if stride > 1 else None
    y = conv(scope["conv1"], x, width // first_reduction, kernel_size=1, stride=first, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = conv(scope["conv2"], y, width, kernel_size=3, stride=1 if blur else stride, groups=groups, bias=bias)
    y = relu(norm(scope["bn2"], y))
    y = blur(y) if blur else y
    y = norm(scope["bn3"], conv(scope["conv3"], y, features, kernel_size=1, bias=bias), scale_init=initializers.zeros)
    return y if channel_attention is None else channel_attention(scope["se"], y)


def _pool(x: Array) -> Array:
    """3x3 average pooling of stride 2."""
    return ops.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


@kernel
def split_attention_bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    radix: int = 2,
    pool_first: bool = False,
    stride: int,
    groups: int,
    base_width: int,
    first_reduction: int,
    stride_first: bool,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of ResNeSt: a bottleneck with split attention into `radix` maps as the 3x3 convolution.

    In the place of a strided convolution, a map is halved by 3x3 average pooling, or by `anti_alias`, after the split
    attention; with `pool_first` before it.
    """
    width = _width(features, groups, base_width)
    first, stride = (stride, 1) if stride_first else (1, stride)
    pool = (anti_alias or _pool) if stride > 1 else None
    y = conv(scope["conv1"], x, width // first_reduction, kernel_size=1, stride=first, bias=bias)
    y = relu(norm(scope["bn1"], y))
    y = pool(y) if pool and pool_first else y
    y = split_attention(scope["conv2"], y, width, radix=radix, groups=groups, bias=bias, norm=norm)
    y = pool(y) if pool and not pool_first else y
    y = norm(scope["bn3"], conv(scope["conv3"], y, features, kernel_size=1, bias=bias), scale_init=initializers.zeros)
    return y if channel_attention is None else channel_attention(scope["se"], y)


@kernel
def selective_kernel_basic(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    ratio: float = 1 / 16,
    multiple: int = 8,
    split_input: bool = True,
    stride: int,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of SK-ResNet-18 and 34: selective kernels and a 3x3 convolution.

    The hidden width of the selection is `ratio` of the output's, rounded to a multiple of `multiple`; `split_input` is
    as `selective_kernel` takes it.
    """
    hidden = round_features(features * ratio, multiple)
    options: dict = dict(stride=stride, split_input=split_input, bias=bias, norm=norm, anti_alias=anti_alias)
    y = selective_kernel(scope["conv1"], x, features, hidden=hidden, **options)
    y = norm(scope["conv2"]["bn"], conv(scope["conv2"]["conv"], y, features, kernel_size=3, bias=bias))
    return y if channel_attention is None else channel_attention(scope["se"], y)


@kernel
def selective_kernel_bottleneck(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    ratio: float = 1 / 16,
    multiple: int = 8,
    split_input: bool = True,
    stride: int,
    groups: int,
    base_width: int,
    first_reduction: int,
    stride_first: bool,
    bias: bool,
    norm: Callable,
    channel_attention: Callable | None,
    anti_alias: Callable | None,
) -> Float[Array, "b h2 w2 f"]:
    """The residual branch of SK-ResNet-50: a bottleneck with selective kernels as the 3x3 convolution.

    `ratio`, `multiple` and `split_input` are as in `selective_kernel_basic`, but `ratio` is of the middle's width.
    """
    width = _width(features, groups, base_width)
    hidden = round_features(width * ratio, multiple)
    first, stride = (stride, 1) if stride_first else (1, stride)
    y = conv(scope["conv1"]["conv"], x, width // first_reduction, kernel_size=1, stride=first, bias=bias)
    y = relu(norm(scope["conv1"]["bn"], y))
    options: dict = dict(stride=stride, groups=groups, split_input=split_input, bias=bias)
    y = selective_kernel(scope["conv2"], y, width, hidden=hidden, norm=norm, anti_alias=anti_alias, **options)
    y = norm(scope["conv3"]["bn"], conv(scope["conv3"]["conv"], y, features, kernel_size=1, bias=bias))
    return y if channel_attention is None else channel_attention(scope["se"], y)


def is_bottleneck(branch: Callable) -> bool:
    """Whether a branch, perhaps with options bound, is a bottleneck, whose output is four times as wide as a stage."""
    return getattr(branch, "func", branch) in (bottleneck, selective_kernel_bottleneck, split_attention_bottleneck)


@kernel
def residual(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    branch: Callable,
    projection: Callable,
    stride: int,
    drop_path_rate: float,
) -> Float[Array, "b h2 w2 f"]:
    """`relu(branch(x) + x)`; where the shape changes, `x` is projected (path `downsample`)."""
    y = drop_path(scope["drop_path"], branch(scope, x, features, stride=stride), drop_path_rate)
    if stride > 1 or x.shape[-1] != features:
        x = projection(scope["downsample"], x, features, stride=stride)
    return relu(y + x)
