"""Operations on arrays: functions without leaves, with fast implementations for CPUs."""

from flaim_core._jax import max_dim
from flaim_core.ops._attention import attention_weights, dot_product_attention
from flaim_core.ops._broadcast import merge_axes, per_channel, repeat_over_batch, split_axis
from flaim_core.ops._channel_attention import channel_attention, channel_attention_weights
from flaim_core.ops._dense import dense
from flaim_core.ops._fits import SizeError, check_fits
from flaim_core.ops._fourier import spectral_filter
from flaim_core.ops._fusion import fusion_boundary
from flaim_core.ops._pool import adaptive_avg_pool, avg_pool, blur_pool, global_avg_pool, global_max_pool, max_pool
from flaim_core.ops._precision import accumulation_dtype, at_least_float32
from flaim_core.ops._rotary import axial_angles, centred_angles, mixed_angles, rotate, rotation
from flaim_core.ops._softmax import softmax
from flaim_core.ops._views import Pads, Sizes, subsample
from flaim_core.ops._windows import (
    class_relative_position_index,
    gather_bias,
    grid_partition,
    grid_reverse,
    relative_position_index,
    shifted_window_mask,
    window_partition,
    window_reverse,
)
from flaim_core.ops.conv import conv, same_padding
from flaim_core.ops.conv.per_sample import conv_per_sample

__all__ = [
    "Pads",
    "SizeError",
    "Sizes",
    "accumulation_dtype",
    "adaptive_avg_pool",
    "at_least_float32",
    "attention_weights",
    "avg_pool",
    "axial_angles",
    "blur_pool",
    "centred_angles",
    "channel_attention",
    "channel_attention_weights",
    "check_fits",
    "class_relative_position_index",
    "conv",
    "conv_per_sample",
    "dense",
    "dot_product_attention",
    "fusion_boundary",
    "gather_bias",
    "global_avg_pool",
    "global_max_pool",
    "grid_partition",
    "grid_reverse",
    "max_dim",
    "max_pool",
    "merge_axes",
    "mixed_angles",
    "per_channel",
    "relative_position_index",
    "repeat_over_batch",
    "rotate",
    "rotation",
    "same_padding",
    "shifted_window_mask",
    "softmax",
    "spectral_filter",
    "split_axis",
    "subsample",
    "window_partition",
    "window_reverse",
]
