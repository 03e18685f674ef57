"""ResNets against timm, an option at a time."""

import json

import jax
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models.resnet._blocks import squeeze_excite_rounded
from flaim.options import options_from, overrides_of
from flaim_core.layers.pooling import blurred_max_pooling
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, torch_name, variables_from
from tests.small import images, randomised

# Each has another stem, block, shortcut, attention, norm or anti-aliasing than the others.
ONE_PER_OPTION = [
    "test_resnet",
    "resnet18",
    "resnet26t",
    "resnet50_gn",
    "resnext50d_32x4d",
    "resnetaa34d",
    "resnetblur18",
    "resnetrs50",
    "seresnet18",
    "seresnetaa50d",
    "ecaresnet26t",
    "ecaresnetlight",
    "wide_resnet50_2",
]


@pytest.mark.parametrize("name", ONE_PER_OPTION)
def test_logits_are_timms(name):
    assert_parity(models.create(name, input_size=64), oracle.create(name))


@pytest.mark.parametrize("name", ["resnet26t", "resnetblur18", "resnext50d_32x4d"])
def test_logits_are_timms_at_an_odd_size(name):
    assert_parity(models.create(name, input_size=(75, 50)), oracle.create(name))


def test_senet_is_timms():
    depths = (1, 2, 1, 1)
    assert_parity(models.create("senet154", input_size=64, depths=depths), oracle.create("senet154", layers=depths))


SMALL = {"depths": (1, 1, 1, 1), "widths": (32, 32, 32, 64)}
TIMM_SMALL = {"layers": (1, 1, 1, 1), "channels": (32, 32, 32, 64)}


# Several maps and groups; one map; two kernels that share the input, and that split it.
@pytest.mark.parametrize("name", ["resnest50d_4s2x40d", "resnest50d_1s4x24d", "skresnext50_32x4d", "skresnet50d"])
def test_split_attention_and_selective_kernels_are_timms(name):
    model = models.create(name, input_size=(75, 50), **SMALL)
    variables = assert_parity(model, oracle.create(name, **TIMM_SMALL))
    first, second = (model.apply(variables, oracle.image((75, 50), seed=seed)).value for seed in (0, 1))
    assert relative_error(first, second) > 1e-2


@pytest.mark.parametrize("name", ["resnest14d", "skresnet18"])
def test_logits_are_timms_at_full_size(name):
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(224, batch=1))


def test_selective_kernels_with_anti_aliasing_and_channel_attention_are_timms():
    block_args = {"attn_layer": "se", "sk_kwargs": {"rd_ratio": 1 / 8, "rd_divisor": 16}}
    layers = oracle.timm.layers
    reference = oracle.create("skresnet34", aa_layer=layers.BlurPool2d, block_args=block_args, **TIMM_SMALL)
    options = {"stem_pool": blurred_max_pooling, "channel_attention": squeeze_excite_rounded}
    model = models.create("skresnet34", input_size=64, anti_alias=core.ops.blur_pool, **SMALL, **options)
    assert_parity(model, reference)


def test_more_channels_fewer_classes():
    reference = oracle.create("resnet18", in_chans=5, num_classes=3)
    assert_parity(models.create("resnet18", n_classes=3, in_channels=5, input_size=48), reference)


def test_the_wide_resnext_that_timm_no_longer_registers():
    model = models.create("resnext101_32x48d")
    with torch.device("meta"):
        reference = oracle.timm.models.resnet.ResNet(
            oracle.timm.models.resnet.Bottleneck, (3, 4, 23, 3), cardinality=32, base_width=48
        )
    expected = sum(parameter.numel() for parameter in reference.parameters())
    assert sum(np.prod(leaf.shape) for leaf in core.flatten(model.spec()["params"]).values()) == expected


def test_heads_are_timms():
    reference = oracle.create("test_resnet")
    model = models.create("test_resnet", input_size=64)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(64)
    with torch.no_grad():
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    found = model.replace(n_classes=0).apply(variables, images).value
    assert relative_error(found, features.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5


@pytest.mark.parametrize("name", ["test_resnet", "resnest14d", "skresnet50"])
def test_training_is_timms(name):
    reference = oracle.create(name, num_classes=5, **TIMM_SMALL).train()
    model = models.create(name, n_classes=5, input_size=64, **SMALL)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(64, batch=4)
    weights = np.random.default_rng(3).standard_normal((4, 5), dtype=np.float32)

    def loss(params):
        output = model.apply({**variables, "params": params}, images, training=True)
        return (output.value * weights).mean(), output

    (_, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    logits = reference(oracle.to_torch(images))
    (logits * torch.from_numpy(weights)).mean().backward()
    assert relative_error(output.value, logits.detach()) < 1e-5

    state = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    expected = core.flatten(variables_from({"params": model.spec()["params"]}, state))
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, gradient in core.flatten({"params": gradients}).items():
        assert np.abs(gradient - expected[path]).max() < 1e-4 * largest, path

    statistics = oracle.state(reference)
    for path, value in core.flatten(output.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_drop_path_rates_grow_to_the_last_block():
    model = models.create("resnet18", drop_path_rate=0.5, input_size=32)
    variables = model.init(jax.random.key(0))
    images = oracle.image(32, batch=64)
    step = jax.jit(lambda v, x: model.apply(v, x, training=True, rng=jax.random.key(0)).value)
    program = step.lower(variables, images).as_text()
    assert program.count("call @_bernoulli") == 7  # eight blocks, the first of which never drops


def test_branches_with_bound_options_are_saved():
    options = {"branch": dict(models.create("resnest50d_4s2x40d").config)["branch"], "depths": (1, 1)}
    model = models.create("resnet50", **options)
    said = json.loads(json.dumps(overrides_of(model)))
    assert said["branch"] == {"function": "split_attention_bottleneck", "radix": 4, "pool_first": True}
    assert models.create("resnet50", **options_from(said, "resnet")) == model


@pytest.mark.parametrize("name", ["resnest50d_4s2x40d", "skresnext50_32x4d"])
def test_all_norms_of_other_branches_fold(name):
    model = models.create(name, input_size=32, depths=(1, 1), n_classes=3)
    variables, x = randomised(model), images(model)
    fused, folded = models.fuse(model, variables)
    assert "batch_stats" not in folded
    assert relative_error(fused.apply(folded, x).value, model.apply(variables, x).value) < 1e-5
