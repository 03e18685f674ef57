from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import require_fixed
from flaim_core.layers._attention import attention
from flaim_core.layers._conv import pair
from flaim_core.scope import Scope, kernel


def attend_in_windows(
    scope: Scope,
    x: Float[Array, "b h w c"],
    attend: Callable,
    *,
    window: int | tuple[int, int],
    shift: int | tuple[int, int] = 0,
    shrink: bool = True,
) -> Float[Array, "b h w c"]:
    """Split a feature map into windows, apply `attend(windows, window, mask)`, and put the windows together again.

    `windows` are (b, n, t, c), `window` is their (height, width). `mask` is None if nothing is shifted, otherwise an
    attention bias (n, 1, t, t) in the dtype of the softmax.

    `window` and `shift` are in tokens, one number or (height, width). The windows are shifted down and right by
    `shift`, usually half a window; this is a cyclic shift of the map, with a mask between tokens from opposite sides.
    With `shrink`, along an axis where the map is not longer than the window, the window is as long as the map, without
    a shift. A map that is not a multiple of the window is padded with zeros at the bottom and right; tokens do attend
    to these. Raises ValueError if a shift is not smaller than its window.
    Liu et al., "Swin Transformer" (2021), section 3.2.
    """
    size, window, shift = (x.shape[1], x.shape[2]), pair(window), pair(shift)
    if any(not 0 <= s < w for s, w in zip(shift, window)):
        raise ValueError(
            f"{'/'.join(scope.path)}: windows of {window[0]}x{window[1]} cannot be shifted by {shift[0]}x{shift[1]}; "
            "each shift must be at least 0 and smaller than its window"
        )
    down, right = shift
    if shrink:
        down, right = (0 if n <= w else s for n, w, s in zip(size, window, shift))
        window = min(size[0], window[0]), min(size[1], window[1])
    rows, columns = (-(-n // w) * w for n, w in zip(size, window))

    mask, shifted = None, bool(down or right)
    if shifted:
        apart = ops.shifted_window_mask((rows, columns), window, (down, right))
        mask = jnp.asarray(apart[:, None], ops.accumulation_dtype(x))
        x = jnp.roll(x, (-down, -right), (1, 2))
    if (rows, columns) != size:
        x = jnp.pad(x, ((0, 0), (0, rows - size[0]), (0, columns - size[1]), (0, 0)))
    windows = attend(ops.window_partition(x, window), window, mask)
    x = ops.window_reverse(windows, window, (rows, columns))[:, : size[0], : size[1]]
    return jnp.roll(x, (down, right), (1, 2)) if shifted else x


@kernel
def window_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    num_heads: int,
    window: int | tuple[int, int] = 7,
    shift: int | tuple[int, int] = 0,
    qkv_bias: bool = True,
    proj_bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Multi-head self-attention within each window of a feature map, with a relative position bias.

    Leaf: `relative_position_bias_table` ((2 * height - 1) * (2 * width - 1) offsets, num_heads). Paths: `qkv`, `proj`.
    `window` and `shift` are those of `attend_in_windows`.
    Captured on request: `weights` (b, windows, heads, t, t), for the windows of the shifted map.
    Liu et al., "Swin Transformer" (2021), section 3.2.
    """
    require_fixed(scope, "relative_position_bias_table", x.shape[1:3])
    options: dict = dict(num_heads=num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias, drop_rate=drop_rate)

    def attend(windows: Array, window: ops.Sizes, mask: Array | None) -> Array:
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        init = initializers.truncated_normal(0.02)
        # In the dtype of the softmax.
        dtype = ops.accumulation_dtype(windows)
        table = scope.param("relative_position_bias_table", (offsets, num_heads), init, dtype=dtype)
        bias = ops.gather_bias(table, ops.relative_position_index(window))
        return attention(scope, windows, bias=bias if mask is None else bias[None] + mask, **options)

    return attend_in_windows(scope, x, attend, window=window, shift=shift)
