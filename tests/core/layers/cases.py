"""Layers with inputs and options, for tests that run them all."""

from functools import partial

import flaim_core as core
from tests.numerics import normal

MAP = normal(4, 6, 5, 8)
TOKENS = normal(4, 9, 8)

# Kernel, its input, options.
LAYERS = {
    "star_relu": (core.star_relu, TOKENS, {}),
    "bam": (core.bam, MAP, {"hidden": 4, "dilation": 2}),
    "cbam": (core.cbam, MAP, {"hidden": 4}),
    "class_token": (core.class_token, TOKENS, {}),
    "conv_mlp": (core.conv_mlp, MAP, {"hidden": 16, "features": 6, "norm": core.batch_norm}),
    "metaformer_block": (
        core.metaformer_block,
        TOKENS,
        {"token_mixer": partial(core.attention, num_heads=2), "mlp_ratio": 2, "layer_scale_init": 0.1},
    ),
    "norm_act_conv": (core.norm_act_conv, MAP, {"features": 6, "stride": 2}),
    "linear": (core.linear, TOKENS, {"features": 5}),
    "conv": (core.conv, MAP, {"features": 6, "kernel_size": (3, 5), "stride": 2, "groups": 2, "padding": (1, 2)}),
    "standardised_conv": (
        core.standardised_conv,
        MAP,
        {"features": 6, "kernel_size": 3, "stride": 2, "padding": "same", "bias": True},
    ),
    "batch_norm": (core.batch_norm, MAP, {}),
    "layer_norm": (core.layer_norm, MAP, {}),
    "group_norm": (core.group_norm, MAP, {"groups": 4}),
    "rms_norm": (core.rms_norm, TOKENS, {}),
    "squeeze_excite": (core.squeeze_excite, MAP, {"hidden": 8}),
    "efficient_channel_attention": (core.efficient_channel_attention, MAP, {}),
    "selective_kernel": (core.selective_kernel, MAP, {"features": 6, "hidden": 4, "stride": 2, "groups": 2}),
    "split_attention": (core.split_attention, MAP, {"features": 6, "radix": 2, "groups": 2, "hidden": 8, "stride": 2}),
    "attention": (core.attention, TOKENS, {"num_heads": 2}),
    "class_attention": (core.class_attention, TOKENS, {"num_heads": 2}),
    "cross_covariance_attention": (core.cross_covariance_attention, TOKENS, {"num_heads": 2}),
    "talking_heads_attention": (core.talking_heads_attention, TOKENS, {"num_heads": 2}),
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
    "overlap_patch_embed": (
        core.overlap_patch_embed,
        MAP,
        {"dim": 6, "patch_size": 3, "stride": 2, "norm": partial(core.layer_norm, eps=1e-5)},
    ),
    "depthwise_conv": (core.depthwise_conv, MAP, {"kernel_size": 5, "dilation": 2}),
    "depthwise_mlp": (core.depthwise_mlp, MAP, {"features": 6, "hidden": 16, "first_act": core.relu}),
    "large_kernel_attention": (core.large_kernel_attention, MAP, {}),
    "spatial_reduction_attention": (
        core.spatial_reduction_attention,
        MAP,
        {"num_heads": 2, "reduce": partial(core.strided_reduction, ratio=2, norm=partial(core.layer_norm, eps=1e-5))},
    ),
    "global_query_attention": (core.global_query_attention, MAP[:, :, :4], {"query": MAP[:, 3:, 3:], "num_heads": 2}),
    "recursive_gated_conv": (core.recursive_gated_conv, MAP, {"order": 3}),
    "global_local_filter": (core.global_local_filter, MAP, {"size": (4, 3)}),
}
