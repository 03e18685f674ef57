from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core.layers._conv import conv
from flaim_core.layers._drop import dropout
from flaim_core.layers._mlp import relu
from flaim_core.scope import Scope, kernel


@kernel
def conv_mlp(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    hidden: int,
    kernel_size: int | tuple[int, int] = 1,
    act: Callable = relu,
    norm: Callable | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b h w f"]:
    """Two convolutions, `fc1` to `hidden` and a 1x1 `fc2` to `features` (by default the input's width).

    `norm`, a kernel, follows `fc1` (path `norm`), before `act`. As timm's `ConvMlp`.
    """
    y = conv(scope["fc1"], x, hidden, kernel_size=kernel_size, bias=bias)
    y = act(y if norm is None else norm(scope["norm"], y))
    y = dropout(scope["drop"], y, drop_rate)
    return conv(scope["fc2"], y, x.shape[-1] if features is None else features, kernel_size=1, bias=bias)
