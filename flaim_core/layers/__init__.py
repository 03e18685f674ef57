"""Kernels that declare leaves and call `flaim_core.ops`."""

from flaim_core.layers._attention import attention
from flaim_core.layers._channel_attention import efficient_channel_attention, squeeze_excite
from flaim_core.layers._conv import conv, pair, resolve_padding
from flaim_core.layers._drop import drop_path, dropout
from flaim_core.layers._head import classifier
from flaim_core.layers._layer_scale import layer_scale
from flaim_core.layers._linear import linear
from flaim_core.layers._mlp import gelu, mlp
from flaim_core.layers._norm import batch_norm, global_response_norm, group_norm, layer_norm, rms_norm
from flaim_core.layers._patch_embed import patch_embed
from flaim_core.layers._patch_merging import patch_merging
from flaim_core.layers._window_attention import window_attention

__all__ = [
    "attention",
    "batch_norm",
    "classifier",
    "conv",
    "drop_path",
    "dropout",
    "efficient_channel_attention",
    "gelu",
    "global_response_norm",
    "group_norm",
    "layer_norm",
    "layer_scale",
    "linear",
    "mlp",
    "pair",
    "patch_embed",
    "patch_merging",
    "resolve_padding",
    "rms_norm",
    "squeeze_excite",
    "window_attention",
]
