from collections.abc import Callable

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
    norm: Callable = batch_norm,
    act: Callable = relu,
    convolution: Callable = conv,
    bias: bool = False,
    **options,
) -> Float[Array, "b h2 w2 f"]:
    """Norm (path `norm`), activation and convolution (path `conv`), in the order of a pre-activation network.

    `options` are those of `convolution`, a kernel with `conv`'s arguments.
    He et al., "Identity Mappings in Deep Residual Networks" (2016), section 4.
    """
    y = act(norm(scope["norm"], x))
    return convolution(scope["conv"], y, features, kernel_size=kernel_size, bias=bias, **options)
