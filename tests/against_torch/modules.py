"""torch's module for each of `tests.core.layers.cases.LAYERS`."""

import functools
from collections import OrderedDict

import numpy as np
import torch

from tests import oracle
from tests.against_torch.hornet import GlobalLocalFilter, RecursiveGatedConv
from tests.core.layers.cases import LAYERS

blocks, pvt_v2 = oracle.timm.models._efficientnet_blocks, oracle.timm.models.pvt_v2
gcvit = oracle.timm.models.gcvit
blocks = oracle.timm.models._efficientnet_blocks
squeeze_excite = functools.partial(blocks.SqueezeExcite, rd_channels=4)


class LayerNorm2d(torch.nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class StarReLU(torch.nn.Module):
    """Yu et al. (2022), equation 4."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.weight * torch.clamp(x, min=0) ** 2 + self.bias


class Bam(torch.nn.Module):
    """Park et al. (2018), equations 2 to 5, the two branches multiplied as in the authors' code."""

    def __init__(self, dim, hidden, dilation):
        super().__init__()
        nn = torch.nn
        self.channel = nn.ModuleDict(
            {"fc1": nn.Linear(dim, hidden), "norm": nn.BatchNorm1d(hidden), "fc2": nn.Linear(hidden, dim)}
        )
        self.spatial = nn.ModuleDict({"conv1": nn.Conv2d(dim, hidden, 1), "norm1": nn.BatchNorm2d(hidden)})
        for i in (2, 3):
            self.spatial[f"conv{i}"] = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)
            self.spatial[f"norm{i}"] = nn.BatchNorm2d(hidden)
        self.spatial["conv4"] = nn.Conv2d(hidden, 1, 1)

    def forward(self, x):
        channel = self.channel["norm"](self.channel["fc1"](x.mean((2, 3))))
        channel = self.channel["fc2"](channel.relu())[:, :, None, None]
        y = x
        for i in (1, 2, 3):
            y = self.spatial[f"norm{i}"](self.spatial[f"conv{i}"](y)).relu()
        return x + x * torch.sigmoid(channel * self.spatial["conv4"](y))


class MetaFormerBlock(torch.nn.Module):
    """Yu et al. (2022), equations 2 and 3, with attention and layer scale."""

    def __init__(self, dim):
        super().__init__()
        layers = oracle.timm.layers
        self.norm1, self.norm2 = (torch.nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = layers.LayerScale(dim), layers.LayerScale(dim)
        self.token_mixer = layers.Attention(dim, num_heads=2, qkv_bias=True)
        self.mlp = layers.Mlp(dim, 2 * dim)

    def forward(self, x):
        x = x + self.ls1(self.token_mixer(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class ClassToken(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x):
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)


def norm_act_conv(dim, features, **options):
    """He et al. (2016): norm, activation, convolution."""
    parts = {"norm": torch.nn.BatchNorm2d(dim), "act": torch.nn.ReLU()}
    parts["conv"] = torch.nn.Conv2d(dim, features, bias=False, **options)
    return torch.nn.Sequential(OrderedDict(parts))


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


class GlobalQueryAttention(gcvit.WindowAttentionGlobal):
    """Within windows, with the query of the test's case."""

    def forward(self, x):
        gcvit, query = (
            oracle.timm.models.gcvit,
            torch.from_numpy(np.array(LAYERS["global_query_attention"][2]["query"])),
        )
        windows = gcvit.window_partition(x.permute(0, 2, 3, 1), self.window_size).flatten(1, 2)
        y = super().forward(windows, query.to(x.dtype))
        return gcvit.window_reverse(y, self.window_size, x.shape[2:]).permute(0, 3, 1, 2)


class WholeMapAttention(oracle.timm.models.swin_transformer_v2.WindowAttention):
    """Attention in one window that is the whole map; its offsets in float64, which timm computes in float32."""

    def forward(self, x):
        axes = (torch.arange(1 - n, n, dtype=torch.float64) / (n - 1) * 8 for n in self.window_size)
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)[None]
        self.relative_coords_table = (offsets.sign() * torch.log2(offsets.abs() + 1) / 3).to(x.dtype)
        return super().forward(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


# torch's module for each of `LAYERS`.
MODULES = {
    "star_relu": StarReLU(),
    "bam": Bam(8, 4, 2),
    "cbam": oracle.timm.layers.cbam.CbamModule(8, rd_channels=4),
    "class_token": ClassToken(8),
    "conv_mlp": oracle.timm.layers.ConvMlp(8, 16, 6, norm_layer=torch.nn.BatchNorm2d),
    "metaformer_block": MetaFormerBlock(8),
    "norm_act_conv": norm_act_conv(8, 6, kernel_size=3, stride=2, padding=1),
    "linear": torch.nn.Linear(8, 5),
    "conv": torch.nn.Conv2d(8, 6, (3, 5), stride=2, groups=2, padding=(1, 2)),
    "standardised_conv": oracle.timm.layers.StdConv2dSame(8, 6, 3, stride=2, bias=True, eps=1e-8),
    "batch_norm": torch.nn.BatchNorm2d(8),
    "layer_norm": LayerNorm2d(8, eps=1e-6),
    "group_norm": torch.nn.GroupNorm(4, 8),
    "rms_norm": torch.nn.RMSNorm(8, eps=1e-6),
    "squeeze_excite": oracle.timm.layers.SqueezeExcite(8, rd_channels=8),
    "efficient_channel_attention": oracle.timm.layers.EcaModule(8),
    "selective_kernel": oracle.timm.layers.SelectiveKernel(8, 6, rd_channels=4, stride=2, groups=2, split_input=False),
    "split_attention": oracle.timm.layers.SplitAttn(
        8, 6, radix=2, groups=2, rd_channels=4, stride=2, norm_layer=torch.nn.BatchNorm2d
    ),
    "attention": oracle.timm.layers.Attention(8, num_heads=2, qkv_bias=True),
    "class_attention": oracle.timm.models.cait.ClassAttn(8, num_heads=2, qkv_bias=True),
    "cross_covariance_attention": oracle.timm.models.xcit.XCA(8, num_heads=2, qkv_bias=True),
    "talking_heads_attention": oracle.timm.models.cait.TalkingHeadAttn(8, num_heads=2, qkv_bias=True),
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
    "overlap_patch_embed": OverlapPatchEmbed(3, 2, 8, 6),
    "depthwise_conv": torch.nn.Conv2d(8, 8, 5, padding="same", dilation=2, groups=8),
    "depthwise_mlp": on_maps(pvt_v2.MlpWithDepthwiseConv)(8, 16, 6, extra_relu=True),
    "large_kernel_attention": LargeKernelAttention(8),
    "spatial_reduction_attention": on_maps(pvt_v2.Attention)(8, num_heads=2, sr_ratio=2),
    "global_query_attention": GlobalQueryAttention(8, 2, (3, 2)),
    "recursive_gated_conv": RecursiveGatedConv(8, 3),
    "global_local_filter": GlobalLocalFilter(8, (4, 3)),
}
