from jaxtyping import Array, Float

from flaim_core.layers._conv import conv
from flaim_core.layers._depthwise_mlp import depthwise_conv
from flaim_core.scope import Scope, kernel


@kernel
def large_kernel_attention(
    scope: Scope, x: Float[Array, "b h w c"], *, kernel_size: int = 5, dilated_kernel_size: int = 7, dilation: int = 3
) -> Float[Array, "b h w c"]:
    """`x` times a convolution of `x` with a large kernel, which is made of three small ones.

    Paths: `conv0`, depthwise; `conv_spatial`, depthwise and dilated; `conv1`, 1x1. With the published sizes the two
    depthwise ones see 23 x 23 pixels. Guo et al., "Visual Attention Network" (2022), section 3.1.
    """
    y = depthwise_conv(scope["conv0"], x, kernel_size=kernel_size)
    y = depthwise_conv(scope["conv_spatial"], y, kernel_size=dilated_kernel_size, dilation=dilation)
    return x * conv(scope["conv1"], y, x.shape[-1], kernel_size=1)
