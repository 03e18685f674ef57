import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import require_fixed
from flaim_core.layers._attention import attend
from flaim_core.layers._conv import pair
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import relu
from flaim_core.layers._window_attention import attend_in_windows
from flaim_core.scope import Scope, kernel


@kernel
def cosine_window_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    window: int | tuple[int, int] = 8,
    shift: int | tuple[int, int] = 0,
    pretrained_window: int | tuple[int, int] = 0,
    qkv_bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Attention within each window of a feature map, by cosines of queries and keys; an MLP gives the position bias.

    The logits are the cosines, times a factor of at most 100 per head, plus a bias from 0 to 16 that an MLP computes
    from the query's offset from the key. No leaf depends on the size of the map or of the windows.
    Leaves: `logit_scale` (num_heads, 1, 1), the factor's logarithm; `q_bias` and `v_bias`, since keys have no bias.
    Paths: `cpb_mlp`, `qkv`, `proj`. `window` and `shift` are those of `attend_in_windows`; `pretrained_window`, where
    not 0, is the window of the training, whose longest offset stays the unit of all offsets.
    Captured on request: `weights` (b, windows, heads, t, t), for the windows of the shifted map.
    Liu et al., "Swin Transformer V2" (2022), sections 3.2 and 3.3.
    """
    require_fixed(scope, "cpb_mlp", x.shape[1:3])

    def attend_by_cosine(windows: Array, window: ops.Sizes, mask: Array | None) -> Array:
        query, key, value = qkv_projection(scope, windows, num_heads=num_heads, bias=qkv_bias, key_bias=False)

        # In the dtype of the softmax.
        init, dtype = initializers.constant(math.log(10)), ops.accumulation_dtype(x)
        scale = scope.param("logit_scale", (num_heads, 1, 1), init, dtype=dtype)
        scale = jnp.exp(jnp.minimum(scale, math.log(100))).reshape(1, 1, 1, num_heads, 1)
        query, key = (_unit(query) * scale).astype(x.dtype), _unit(key).astype(x.dtype)
        bias = _position_bias(scope["cpb_mlp"], x, num_heads, window, pretrained_window)
        y = attend(scope, query, key, value, bias if mask is None else bias[None] + mask, scale=1.0)
        return heads_projection(scope, y, drop_rate=drop_rate)

    return attend_in_windows(scope, x, attend_by_cosine, window=window, shift=shift)


def _unit(x: Array) -> Array:
    """Divide the last axis by its L2 norm, in float32 or wider.

    The keys of padding are 0. They stay 0, and their gradient is 0: the true one has no bound and would become NaN.
    """
    wide = ops.at_least_float32(x)
    square, tiny = jnp.sum(jnp.square(wide), -1, keepdims=True), 1e-24
    inverse = jnp.where(square > tiny, jax.lax.rsqrt(jnp.maximum(square, tiny)), jnp.zeros_like(square))
    return wide * ops.fusion_boundary(inverse)


def _position_bias(scope: Scope, x: Array, num_heads: int, window: ops.Sizes, pretrained: int | ops.Sizes) -> Array:
    """The bias (heads, t, t) from an MLP with 512 hidden units, in the dtype of the softmax."""
    reference = pair(pretrained) if pretrained else window
    # An offset as long as the window is 8; on the logarithmic scale it is about 1.
    rows, columns = (8 * np.arange(1 - n, n) / max(unit - 1, 1) for n, unit in zip(window, reference))
    offsets = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    logarithms = jnp.asarray(np.sign(offsets) * np.log2(np.abs(offsets) + 1) / 3, x.dtype)
    table = linear(scope[2], relu(linear(scope[0], logarithms, 512)), num_heads, bias=False)
    return ops.gather_bias(16 * jax.nn.sigmoid(ops.at_least_float32(table)), ops.relative_position_index(window))
