"""EfficientNets and mobile networks against timm: every block type and option on shallow networks, tables on all."""

import inspect
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models.efficientnet import FAMILY
from flaim.models.efficientnet._blocks import conditional_mbconv, space_to_depth_separable
from flaim_core.layers.stacks import Stack
from tests import oracle
from tests.leaks import checking_leaks
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, torch_name, variables_from

timm_module = oracle.timm.models.efficientnet
decode = timm_module.decode_arch_def


@pytest.fixture
def shallow(monkeypatch):
    """Make a variant and its reference with one block a stack, and their other options as they are."""

    def cut(stages, *args, **kwargs):
        # A second block after a space-to-depth one works on its output, so that stage keeps both.
        kept = [[re.sub(r"_r\d+", "_r2" if "_d1" in block else "_r1", block) for block in stage] for stage in stages]
        return decode(kept, **{key: kwargs[key] for key in ("group_size", "experts_multiplier") if key in kwargs})

    monkeypatch.setattr(timm_module, "decode_arch_def", cut)

    def create(name, input_size, **reference_options):
        stages = dict(models.create(name).config)["stages"]
        stages = tuple(tuple(replace(stack, depth=1) for stack in stage) for stage in stages)
        return models.create(name, input_size=input_size, stages=stages), oracle.create(name, **reference_options)

    return create


# Each has other blocks or other options than those before it.
ONE_PER_OPTION = [
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_blur_b0",
    "efficientnet_cc_b0_8e",
    "efficientnet_es",
    "efficientnet_x_b3",
    "gc_efficientnetv2_rw_t",
    "efficientnetv2_rw_s",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "semnasnet_100",
    "mixnet_s",
    "mobilenet_edgetpu_v2_m",
]
TENSORFLOW = ["tf_efficientnet_b0", "tf_efficientnet_cc_b0_4e", "tf_efficientnetv2_b0", "tf_mixnet_m"]


@pytest.mark.parametrize("name", ONE_PER_OPTION)
def test_logits_are_timms(name, shallow):
    assert_parity(*shallow(name, 64))


@pytest.mark.parametrize("name", TENSORFLOW)
def test_padding_is_tensorflows_at_odd_and_even_sizes(name, shallow):
    assert_parity(*shallow(name, (75, 50)))  # 38, 19, 10, 5, 3 rows and 25, 13, 7, 4, 2 columns


@pytest.mark.parametrize("name", ["efficientnet_x_b3", "efficientnet_blur_b0"])
def test_logits_are_timms_at_an_odd_size(name, shallow):
    assert_parity(*shallow(name, (75, 50)))


def test_fbnet_has_its_weights_epsilon(shallow):
    assert_parity(*shallow("fbnetc_100", 64, bn_eps=1e-3))


@pytest.mark.parametrize("norm", ["", "_gn", "_ln", "_evos"])
def test_whole_networks_are_timms(norm):
    assert_parity(models.create(f"test_efficientnet{norm}", input_size=64), oracle.create(f"test_efficientnet{norm}"))


def test_a_whole_deep_network_is_timms():
    assert_parity(models.create("mnasnet_small", input_size=64), oracle.create("mnasnet_small"), tolerance=2e-5)


KINDS = {
    "ConvBnAct": ("conv_norm_act",),
    "DepthwiseSeparableConv": ("depthwise_separable", "space_to_depth_separable"),
    "InvertedResidual": ("mbconv",),
    "CondConvResidual": ("conditional_mbconv",),
    "EdgeResidual": ("fused_mbconv",),
}


def timms_wiring(block: torch.nn.Module) -> tuple:
    """What the block's shapes do not show: stride, TensorFlow's padding, shortcut, activation, epsilon."""
    spatial = next(getattr(block, name) for name in ("conv_dw", "conv_exp", "conv") if hasattr(block, name))
    spatial = spatial["0"] if isinstance(spatial, torch.nn.ModuleDict) else spatial
    stride = getattr(block.aa, "stride", spatial.stride[0])  # an anti-aliasing layer strides instead
    same = type(spatial).__name__ == "Conv2dSame" or getattr(spatial, "dynamic_padding", False)
    act = type(block.bn1.act).__name__.lower() if hasattr(block.bn1, "act") else "evo"
    return stride, same, block.has_skip, act, block.bn1.eps


def our_wiring(stack: Stack, position: int, config: dict, features: int) -> tuple:
    defaults = {key: parameter.default for key, parameter in inspect.signature(stack.block).parameters.items()}
    options = {"norm": core.batch_norm, "act": jax.nn.silu, "padding": None, **config, **stack.options_of(position)}
    stride, norm = options.get("stride", 1), options.get("norm_act") or options["norm"]
    residual = options.get("residual", defaults.get("residual", True)) and stride == 1 and features == stack.features
    eps = inspect.signature(norm).parameters["eps"].default
    act = "evo" if "norm_act" in config else options["act"].__name__
    same = options["padding"] == "same" and stride == 2  # elsewhere it pads an odd kernel as any padding does
    return stride, same or stack.block is space_to_depth_separable, residual, act, eps


def test_every_variants_blocks_are_wired_as_timms():
    for name, variant in FAMILY.variants.items():
        if not oracle.timm.is_model(name):
            continue
        reference = oracle.create_meta(name, **({"bn_eps": 1e-3} if name == "fbnetc_100" else {}))
        features = variant["stem_features"]
        for stage, modules in zip(variant["stages"], reference.blocks, strict=True):
            blocks = [(stack, i) for stack in stage for i in range(stack.depth)]
            for (stack, i), module in zip(blocks, modules, strict=True):
                assert stack.block.__name__ in KINDS[type(module).__name__], name
                assert our_wiring(stack, i, variant, features) == timms_wiring(module), (name, stack)
                features = stack.features


def test_stages_are_timms_feature_maps():
    for name in ("efficientnet_b0", "efficientnet_x_b3", "mobilenetv2_100", "efficientnetv2_s", "mobilenetv1_100"):
        expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta(name).feature_info if f["stage"] > 0]
        model = models.create(name, input_size=256)
        assert [(f.channels, f.reduction) for f in model.feature_info[1:]] == expected
        assert model.feature_info[0].reduction == 2


def test_a_conditional_block_under_every_transformation():
    x = jax.numpy.asarray(oracle.image(7, batch=3, channels=8))
    options = dict(features=8, num_experts=3, kernel_size=5)
    variables = core.init(conditional_mbconv, jax.random.key(0), x, **options)

    def run(variables, x, **settings):
        return core.apply(conditional_mbconv, variables, x, **options, **settings).value

    with checking_leaks():
        expected = jax.jit(run)(variables, x)
        half = jax.jit(lambda v, x: run(v, x, dtype=jax.numpy.bfloat16))(variables, x)
        single = jax.jit(jax.vmap(lambda v, x: run(v, x[None])[0], (None, 0)))(variables, x)
        again = jax.jit(lambda v, x: run(v, x, remat=True))(variables, x)
    assert half.dtype == jax.numpy.bfloat16 and relative_error(half.astype(np.float32), expected) < 0.05
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)


def test_heads_and_intermediates_are_timms():
    reference = oracle.create("test_efficientnet")
    model = models.create("test_efficientnet", input_size=64)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(64)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    output = jax.jit(lambda v, x: model.replace(n_classes=0).apply(v, x, capture="stage_*"))(variables, images)
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    for i, expected in enumerate(maps, 1):
        assert relative_error(output.intermediates[f"stage_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    found = jax.jit(lambda v, x: model.replace(n_classes=-1).apply(v, x).value)(variables, images)
    assert relative_error(found, pooled) < 1e-5


def test_gradients_are_timms():
    assert_gradient_parity(models.create("test_efficientnet", input_size=64), oracle.create("test_efficientnet"))


def test_training_is_timms():
    reference = oracle.create("test_efficientnet", num_classes=5).train()
    model = models.create("test_efficientnet", n_classes=5, input_size=96)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(96, batch=4)
    output = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    with torch.no_grad():
        assert relative_error(output.value, reference(oracle.to_torch(images))) < 1e-5
    statistics = oracle.state(reference)
    for path, value in core.flatten(output.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_drop_path_rates_are_timms():
    rates = []

    def block(scope, x, features, *, drop_path_rate, **options):
        rates.append(drop_path_rate)
        return x

    stages = FAMILY.variants["efficientnet_b0"]["stages"]
    stages = tuple(tuple(replace(stack, block=block) for stack in stage) for stage in stages)
    models.create("efficientnet_b0", drop_path_rate=0.32, stages=stages).spec()
    reference = oracle.create_meta("efficientnet_b0", drop_path_rate=0.32)
    expected = [getattr(block.drop_path, "drop_prob", 0) for stage in reference.blocks for block in stage]
    np.testing.assert_allclose(rates, expected)
