"""Layers with inputs and options, for tests that run them all."""

import flaim_core as core
from tests.numerics import normal

MAP = normal(4, 6, 5, 8)
TOKENS = normal(4, 9, 8)

# Kernel, its input, options.
LAYERS = {
    "linear": (core.linear, TOKENS, {"features": 5}),
    "conv": (core.conv, MAP, {"features": 6, "kernel_size": (3, 5), "stride": 2, "groups": 2, "padding": (1, 2)}),
    "batch_norm": (core.batch_norm, MAP, {}),
    "layer_norm": (core.layer_norm, MAP, {}),
    "group_norm": (core.group_norm, MAP, {"groups": 4}),
    "rms_norm": (core.rms_norm, TOKENS, {}),
    "squeeze_excite": (core.squeeze_excite, MAP, {"hidden": 8}),
    "efficient_channel_attention": (core.efficient_channel_attention, MAP, {}),
    "attention": (core.attention, TOKENS, {"num_heads": 2}),
    "cosine_window_attention": (core.cosine_window_attention, MAP, {"num_heads": 2}),
    "channel_group_attention": (core.channel_group_attention, TOKENS, {"num_heads": 2}),
    "token_scaled_channel_attention": (core.token_scaled_channel_attention, TOKENS, {"num_heads": 2}),
    "mlp": (core.mlp, TOKENS, {"hidden": 16}),
    "patch_embed": (core.patch_embed, MAP[:, :, :4], {"dim": 5, "patch_size": 2}),
    "mbconv": (
        core.mbconv,
        MAP,
        {"features": 8, "expand_ratio": 3, "kernel_size": 5, "se_ratio": 0.5, "group_size": 4},
    ),
    "fused_mbconv": (
        core.fused_mbconv,
        MAP,
        {"features": 5, "expand_ratio": 2, "stride": 2, "group_size": 4, "padding": "same"},
    ),
    "depthwise_separable": (core.depthwise_separable, MAP, {"features": 8, "activate_output": True}),
    "conv_norm_act": (core.conv_norm_act, MAP, {"features": 8, "residual": True}),
    "mixed_conv": (
        core.mixed_conv,
        MAP,
        {"features": 8, "kernel_size": (3, 5, 7), "groups": 8, "stride": 2, "bias": False},
    ),
    "global_context": (core.global_context, MAP, {"hidden": 4}),
    "evo_norm": (core.evo_norm, MAP, {"group_size": 4}),
    "layer_scale": (core.layer_scale, TOKENS, {}),
}
