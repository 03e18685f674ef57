from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._conv import conv
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import gelu
from flaim_core.scope import Scope, kernel


@kernel
def depthwise_conv(
    scope: Scope, x: Float[Array, "b h w c"], *, kernel_size: int = 3, dilation: int = 1
) -> Float[Array, "b h w c"]:
    """Convolution of each channel by itself, which keeps the size of a map."""
    options: dict = dict(kernel_size=kernel_size, dilation=dilation, groups=x.shape[-1])
    return conv(scope, x, x.shape[-1], kernel_init=initializers.he_normal, **options)


@kernel
def depthwise_mlp(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    hidden: int,
    dense: Callable = linear,
    depthwise: Callable = depthwise_conv,
    first_act: Callable | None = None,
    act: Callable = gelu,
    drop_rate: float = 0.0,
) -> Float[Array, "b h w f"]:
    """MLP on each position of a map, with a depthwise convolution of the hidden layer, which lets neighbours mix.

    Paths: `fc1`, `dwconv`, `fc2`. `dense` and `depthwise` are the kernels of the layers and of the convolution.
    `first_act` is applied before the convolution, `act` after it.
    Wang et al., "PVT v2" (2022), section 3.3; Guo et al., "Visual Attention Network" (2022), section 3.2.
    """
    y = dense(scope["fc1"], x, hidden)
    y = depthwise(scope["dwconv"], y if first_act is None else first_act(y))
    y = dropout(scope["drop1"], act(y), drop_rate)
    return dropout(scope["drop2"], dense(scope["fc2"], y, x.shape[-1] if features is None else features), drop_rate)
