"""torch's module for each of `tests.core.layers.cases.LAYERS`."""

import functools

import torch

from tests import oracle

blocks = oracle.timm.models._efficientnet_blocks
squeeze_excite = functools.partial(blocks.SqueezeExcite, rd_channels=4)


class LayerNorm2d(torch.nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WholeMapAttention(oracle.timm.models.swin_transformer_v2.WindowAttention):
    """Attention in one window that is the whole map; its offsets in float64, which timm computes in float32."""

    def forward(self, x):
        axes = (torch.arange(1 - n, n, dtype=torch.float64) / (n - 1) * 8 for n in self.window_size)
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)[None]
        self.relative_coords_table = (offsets.sign() * torch.log2(offsets.abs() + 1) / 3).to(x.dtype)
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


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
    "cosine_window_attention": WholeMapAttention(8, (6, 5), num_heads=2),
    "channel_group_attention": oracle.timm.models.davit.ChannelAttention(8, num_heads=2, qkv_bias=True),
    "token_scaled_channel_attention": oracle.timm.models.davit.ChannelAttentionV2(8, num_heads=2),
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
}
