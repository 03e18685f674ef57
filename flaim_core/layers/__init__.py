"""Layers: kernels that declare leaves and call `flaim_core.ops`."""

from flaim_core.layers._attention import attend, attention
from flaim_core.layers._attention_pool import attention_pool
from flaim_core.layers._channel_attention import efficient_channel_attention, squeeze_excite
from flaim_core.layers._conditional_conv import conditional_conv
from flaim_core.layers._conv import conv, pair, resolve_padding
from flaim_core.layers._conv_norm_relu import conv_norm_relu
from flaim_core.layers._differential_attention import differential_attention, differential_heads
from flaim_core.layers._drop import drop_path, drop_path_schedule, dropout
from flaim_core.layers._evo_norm import evo_norm
from flaim_core.layers._global_context import global_context
from flaim_core.layers._grid_attention import (
    block_attention,
    grid_attention,
    relative_position_map,
    relative_position_mlp,
    relative_position_table,
)
from flaim_core.layers._head import classifier, classifier_head
from flaim_core.layers._layer_scale import layer_scale
from flaim_core.layers._linear import linear
from flaim_core.layers._mbconv import conv_norm_act, depthwise_separable, fused_mbconv, mbconv, round_features
from flaim_core.layers._mixed_conv import mixed_conv
from flaim_core.layers._mlp import gelu, gelu_tanh, glu, mlp, packed_glu, quick_gelu, relu
from flaim_core.layers._norm import batch_norm, global_response_norm, group_norm, layer_norm, rms_norm
from flaim_core.layers._patch_embed import patch_embed
from flaim_core.layers._patch_merging import patch_merging
from flaim_core.layers._position_embedding import position_embedding
from flaim_core.layers._rotary import rotary_frequencies
from flaim_core.layers._window_attention import window_attention

__all__ = [
    "attend",
    "attention",
    "attention_pool",
    "batch_norm",
    "block_attention",
    "classifier",
    "classifier_head",
    "conditional_conv",
    "conv",
    "conv_norm_act",
    "conv_norm_relu",
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
    "global_response_norm",
    "glu",
    "grid_attention",
    "group_norm",
    "layer_norm",
    "layer_scale",
    "linear",
    "mbconv",
    "mixed_conv",
    "mlp",
    "packed_glu",
    "pair",
    "patch_embed",
    "patch_merging",
    "position_embedding",
    "quick_gelu",
    "relative_position_map",
    "relative_position_mlp",
    "relative_position_table",
    "relu",
    "resolve_padding",
    "rms_norm",
    "rotary_frequencies",
    "round_features",
    "squeeze_excite",
    "window_attention",
]
