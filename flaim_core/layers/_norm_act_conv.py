from collections.abc import Callable
from typing import Literal

from jaxtyping import Array, Float

from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel


@kernel
def norm_act_conv(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    *,
    kernel_size: int | tuple[int, int] = 3,
    stride: int = 1,
    padding: int | tuple | Literal["same"] | None = None,
    bias: bool = False,
    norm: Callable = batch_norm,
    act: Callable = relu,
    convolution: Callable = conv,
) -> Float[Array, "b h2 w2 f"]:
    """Norm (path `norm`), activation and convolution (path `conv`), in the order of a pre-activation network.

    `stride`, `padding` and `bias` are as `conv` takes them; other options are bound to `convolution`, such as
    `partial(conv, groups=4)` or `standardised_conv`.
    He et al., "Identity Mappings in Deep Residual Networks" (2016), section 4.
    """
    y = act(norm(scope["norm"], x))
    options: dict = dict(kernel_size=kernel_size, stride=stride, padding=padding, bias=bias)
    return convolution(scope["conv"], y, features, **options)
