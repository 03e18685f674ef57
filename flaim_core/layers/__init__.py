"""Layers: kernels that declare leaves and call `flaim_core.ops`."""

from flaim_core.layers._attention import attend, attention
from flaim_core.layers._attention_pool import attention_pool
from flaim_core.layers._bam import bam
from flaim_core.layers._cbam import cbam, cbam_channel_attention, cbam_spatial_attention
from flaim_core.layers._channel_attention import efficient_channel_attention, squeeze_excite
from flaim_core.layers._channel_group_attention import channel_group_attention, token_scaled_channel_attention
from flaim_core.layers._class_attention import class_attention
from flaim_core.layers._class_relative_position import class_relative_position_table
from flaim_core.layers._class_token import class_token
from flaim_core.layers._conditional_conv import conditional_conv
from flaim_core.layers._conv import conv, pair, resolve_padding
from flaim_core.layers._conv_mlp import conv_mlp
from flaim_core.layers._conv_norm_relu import conv_norm_relu
from flaim_core.layers._cosine_window_attention import cosine_window_attention
from flaim_core.layers._cross_covariance_attention import cross_covariance_attention
from flaim_core.layers._depthwise_mlp import depthwise_conv, depthwise_mlp
from flaim_core.layers._differential_attention import differential_attention, differential_heads
from flaim_core.layers._drop import drop_path, drop_path_schedule, dropout
from flaim_core.layers._evo_norm import evo_norm
from flaim_core.layers._global_context import global_context
from flaim_core.layers._global_query_attention import global_query_attention
from flaim_core.layers._grid_attention import (
    block_attention,
    grid_attention,
    relative_position_map,
    relative_position_mlp,
    relative_position_table,
)
from flaim_core.layers._head import classifier, classifier_head
from flaim_core.layers._heads import heads_projection, qkv_projection
from flaim_core.layers._large_kernel_attention import large_kernel_attention
from flaim_core.layers._layer_scale import layer_scale
from flaim_core.layers._linear import linear
from flaim_core.layers._mbconv import conv_norm_act, depthwise_separable, fused_mbconv, mbconv, round_features
from flaim_core.layers._metaformer import metaformer_block
from flaim_core.layers._mixed_conv import mixed_conv
from flaim_core.layers._mlp import gelu, gelu_tanh, glu, mlp, packed_glu, quick_gelu, relu
from flaim_core.layers._norm import batch_norm, global_response_norm, group_norm, layer_norm, rms_norm
from flaim_core.layers._norm_act_conv import norm_act_conv
from flaim_core.layers._patch_embed import overlap_patch_embed, patch_embed
from flaim_core.layers._patch_merging import patch_merging
from flaim_core.layers._position_embedding import position_embedding
from flaim_core.layers._recursive_gated_conv import global_local_filter, recursive_gated_conv
from flaim_core.layers._rotary import rotary_frequencies
from flaim_core.layers._selective_kernel import selective_kernel
from flaim_core.layers._spatial_reduction_attention import spatial_reduction_attention, strided_reduction
from flaim_core.layers._split_attention import split_attention
from flaim_core.layers._standardised_conv import standardised_conv
from flaim_core.layers._star_relu import star_relu
from flaim_core.layers._talking_heads_attention import talking_heads_attention
from flaim_core.layers._window_attention import attend_in_windows, window_attention

__all__ = [
    "attend",
    "attend_in_windows",
    "attention",
    "attention_pool",
    "bam",
    "batch_norm",
    "block_attention",
    "cbam",
    "cbam_channel_attention",
    "cbam_spatial_attention",
    "channel_group_attention",
    "class_attention",
    "class_relative_position_table",
    "class_token",
    "classifier",
    "classifier_head",
    "conditional_conv",
    "conv",
    "conv_mlp",
    "conv_norm_act",
    "conv_norm_relu",
    "cosine_window_attention",
    "cross_covariance_attention",
    "depthwise_conv",
    "depthwise_mlp",
    "depthwise_separable",
    "differential_attention",
    "differential_heads",
    "drop_path",
    "drop_path_schedule",
    "dropout",
    "efficient_channel_attention",
    "evo_norm",
    "fused_mbconv",
    "gelu",
    "gelu_tanh",
    "global_context",
    "global_local_filter",
    "global_query_attention",
    "global_response_norm",
    "glu",
    "grid_attention",
    "group_norm",
    "heads_projection",
    "large_kernel_attention",
    "layer_norm",
    "layer_scale",
    "linear",
    "mbconv",
    "metaformer_block",
    "mixed_conv",
    "mlp",
    "norm_act_conv",
    "overlap_patch_embed",
    "packed_glu",
    "pair",
    "patch_embed",
    "patch_merging",
    "position_embedding",
    "qkv_projection",
    "quick_gelu",
    "recursive_gated_conv",
    "relative_position_map",
    "relative_position_mlp",
    "relative_position_table",
    "relu",
    "resolve_padding",
    "rms_norm",
    "rotary_frequencies",
    "round_features",
    "selective_kernel",
    "spatial_reduction_attention",
    "split_attention",
    "squeeze_excite",
    "standardised_conv",
    "star_relu",
    "strided_reduction",
    "talking_heads_attention",
    "token_scaled_channel_attention",
    "window_attention",
]
