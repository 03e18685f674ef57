from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._linear import linear
from flaim_core.layers._norm import layer_norm
from flaim_core.scope import Scope, kernel


@kernel
def patch_merging(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    norm: Callable = layer_norm,
    norm_first: bool = True,
) -> Float[Array, "b h2 w2 f"]:
    """Halve a feature map: concatenate the channels of each 2x2 tokens, normalise, and project to `features`.

    Paths: `norm`, a kernel over 4 * c channels (the left column of tokens from top to bottom, then the right one), or
    over `features` after the projection if not `norm_first`; `reduction`, a linear layer without bias. `features` is
    2 * c unless given. A map with an odd side is padded with one row or column of zeros at the bottom or right.
    Liu et al., "Swin Transformer" (2021), section 3.1; without `norm_first`, "Swin Transformer V2" (2022).
    """
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    x = ops.split_axis(ops.split_axis(x, 2, 2), 1, 2).transpose(0, 1, 3, 4, 2, 5)
    x = x.reshape(batch, rows, columns, 4 * channels)
    x = norm(scope["norm"], x) if norm_first else x
    x = linear(scope["reduction"], x, 2 * channels if features is None else features, bias=False)
    return x if norm_first else norm(scope["norm"], x)
