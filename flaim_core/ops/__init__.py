"""Arrays in, arrays out: lowerings and partitions without leaves."""

from flaim_core._jax import max_dim
from flaim_core.ops._attention import dot_product_attention
from flaim_core.ops._broadcast import per_channel
from flaim_core.ops._dense import dense
from flaim_core.ops._pool import avg_pool, blur_pool, global_avg_pool, global_max_pool, max_pool
from flaim_core.ops._views import Pads, Sizes, every
from flaim_core.ops._windows import (
    gather_bias,
    grid_partition,
    grid_reverse,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)
from flaim_core.ops.conv import conv, same_padding

__all__ = [
    "Pads",
    "Sizes",
    "avg_pool",
    "blur_pool",
    "conv",
    "dense",
    "dot_product_attention",
    "every",
    "gather_bias",
    "global_avg_pool",
    "global_max_pool",
    "grid_partition",
    "grid_reverse",
    "max_dim",
    "max_pool",
    "per_channel",
    "relative_position_index",
    "same_padding",
    "shifted_window_mask",
    "window_partition",
    "window_reverse",
]
