"""torch's module for each of `tests.core.layers.cases.LAYERS`."""

import functools

import numpy as np
import torch

from tests import oracle
from tests.against_torch.hornet import GlobalLocalFilter, RecursiveGatedConv
from tests.core.layers.cases import LAYERS

gcvit = oracle.timm.models.gcvit
blocks = oracle.timm.models._efficientnet_blocks
squeeze_excite = functools.partial(blocks.SqueezeExcite, rd_channels=4)


class LayerNorm2d(torch.nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalQueryAttention(gcvit.WindowAttentionGlobal):
    """Within windows, with the query of the test's case."""

    def forward(self, x):
        gcvit, query = (
            oracle.timm.models.gcvit,
            torch.from_numpy(np.array(LAYERS["global_query_attention"][2]["query"])),
        )
        windows = gcvit.window_partition(x.permute(0, 2, 3, 1), self.window_size).flatten(1, 2)
        y = super().forward(windows, query.to(x.dtype))
        return gcvit.window_reverse(y, self.window_size, x.shape[2:])


# torch's module for each of `LAYERS`.
MODULES = {
    "linear": torch.nn.Linear(8, 5),
    "conv": torch.nn.Conv2d(8, 6, (3, 5), stride=2, groups=2, padding=(1, 2)),
    "batch_norm": torch.nn.BatchNorm2d(8),
    "layer_norm": LayerNorm2d(8, eps=1e-6),
    "group_norm": torch.nn.GroupNorm(4, 8),
    "rms_norm": torch.nn.RMSNorm(8, eps=1e-6),
    "squeeze_excite": oracle.timm.layers.SqueezeExcite(8, rd_channels=8),
    "efficient_channel_attention": oracle.timm.layers.EcaModule(8),
    "attention": oracle.timm.layers.Attention(8, num_heads=2, qkv_bias=True),
    "mlp": oracle.timm.layers.Mlp(8, 16),
    "patch_embed": oracle.timm.layers.PatchEmbed((6, 4), 2, 8, 5, output_fmt="NHWC"),
    "mbconv": blocks.InvertedResidual(
        8, 8, 5, exp_ratio=3, group_size=4, se_layer=squeeze_excite, act_layer=torch.nn.SiLU
    ),
    "fused_mbconv": blocks.EdgeResidual(
        8, 5, 3, stride=2, exp_ratio=2, group_size=4, pad_type="same", act_layer=torch.nn.SiLU
    ),
    "depthwise_separable": blocks.DepthwiseSeparableConv(8, 8, pw_act=True, act_layer=torch.nn.SiLU),
    "conv_norm_act": blocks.ConvBnAct(8, 8, 3, skip=True, act_layer=torch.nn.SiLU),
    "mixed_conv": oracle.timm.layers.MixedConv2d(8, 8, [3, 5, 7], stride=2, depthwise=True, bias=False),
    "global_context": oracle.timm.layers.GlobalContext(8, rd_channels=4),
    "evo_norm": oracle.timm.layers.EvoNorm2dS0(8, group_size=4),
    "layer_scale": oracle.timm.layers.LayerScale(8),
    "global_query_attention": GlobalQueryAttention(8, 2, (3, 2)),
    "recursive_gated_conv": RecursiveGatedConv(8, 3),
    "global_local_filter": GlobalLocalFilter(8, (4, 3)),
}
