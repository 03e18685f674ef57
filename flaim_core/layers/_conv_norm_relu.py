from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.scope import Scope, kernel


@kernel
def conv_norm_relu(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int,
    kernel_size: int | tuple[int, int] = 1,
    *,
    stride: int = 1,
    padding: int | None = None,
    norm: Callable = batch_norm,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution without bias (`conv`), norm (`bn`) and ReLU: the layer of Inception networks.

    `padding` is as `conv` takes it. Szegedy et al., "Rethinking the Inception Architecture" (2015).
    """
    x = conv(scope["conv"], x, features, kernel_size=kernel_size, stride=stride, padding=padding, bias=False)
    return relu(norm(scope["bn"], x))
