"""Each kernel against torch's layer of the same name."""

import functools

import numpy as np
import pytest
import torch

import flaim_core as core
from tests import oracle
from tests.core.test_layers import LAYERS, MAP
from tests.numerics import relative_error
from tests.parity import variables_from

blocks = oracle.timm.models._efficientnet_blocks
squeeze_excite = functools.partial(blocks.SqueezeExcite, rd_channels=4)


class LayerNorm2d(torch.nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


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
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_torchs(name):
    (layer, x, options), module = LAYERS[name], MODULES[name]
    oracle.randomise(module.eval())
    variables = variables_from(core.spec(layer, x, **options), oracle.state(module))
    found = layer(variables, x, **options)
    tensor = oracle.to_torch(np.asarray(x)) if x.ndim == 4 else torch.from_numpy(np.array(x))
    with torch.no_grad():
        expected = module(tensor)
    if expected.ndim == 4 and found.shape != tuple(expected.shape):
        expected = expected.permute(0, 2, 3, 1)
    assert relative_error(found, expected) < 2e-6


def test_batch_norm_trains_as_torchs():
    module = oracle.randomise(torch.nn.BatchNorm2d(8)).train()
    variables = variables_from(core.spec(core.batch_norm, MAP), oracle.state(module))
    output = core.apply(core.batch_norm, variables, MAP, training=True)
    expected = module(oracle.to_torch(np.asarray(MAP))).detach().permute(0, 2, 3, 1)
    assert relative_error(output.value, expected) < 2e-6
    assert relative_error(output.batch_stats["mean"], module.running_mean) < 1e-6
    assert relative_error(output.batch_stats["var"], module.running_var) < 1e-6


def test_global_response_norm_is_timms():
    module = oracle.timm.layers.grn.GlobalResponseNorm(8, channels_last=True)
    oracle.randomise(module)
    variables = variables_from(core.spec(core.global_response_norm, MAP), oracle.state(module))
    with torch.no_grad():
        expected = module(torch.from_numpy(np.array(MAP)))
    assert relative_error(core.global_response_norm(variables, MAP), expected) < 2e-6
