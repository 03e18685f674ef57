"""torch's module for each of `tests.core.layers.cases.LAYERS`."""

import functools

import torch

from tests import oracle

blocks, pvt_v2 = oracle.timm.models._efficientnet_blocks, oracle.timm.models.pvt_v2
squeeze_excite = functools.partial(blocks.SqueezeExcite, rd_channels=4)


class LayerNorm2d(torch.nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OverlapPatchEmbed(pvt_v2.OverlapPatchEmbed):
    def forward(self, x):
        return super().forward(x).permute(0, 3, 1, 2)


def on_maps(module: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A module of tokens and the size of their map, as one of a map."""

    class OnMaps(module):
        def forward(self, x):
            return super().forward(x.flatten(2).mT, x.shape[2:]).mT.unflatten(2, x.shape[2:])

    return OnMaps


class LargeKernelAttention(torch.nn.Module):
    """The formulas of Guo et al., "Visual Attention Network" (2022), section 3.1."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv0 = torch.nn.Conv2d(dim, dim, 5, padding="same", groups=dim)
        self.conv_spatial = torch.nn.Conv2d(dim, dim, 7, padding="same", dilation=3, groups=dim)
        self.conv1 = torch.nn.Conv2d(dim, dim, 1)

    def forward(self, x):
        return self.conv1(self.conv_spatial(self.conv0(x))) * x


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
    "overlap_patch_embed": OverlapPatchEmbed(3, 2, 8, 6),
    "depthwise_conv": torch.nn.Conv2d(8, 8, 5, padding="same", dilation=2, groups=8),
    "depthwise_mlp": on_maps(pvt_v2.MlpWithDepthwiseConv)(8, 16, 6, extra_relu=True),
    "large_kernel_attention": LargeKernelAttention(8),
    "spatial_reduction_attention": on_maps(pvt_v2.Attention)(8, num_heads=2, sr_ratio=2),
}
