"""VGGs against timm."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models.vgg import at_least
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, torch_name, variables_from

VGG = oracle.timm.models.vgg.VGG
# Narrow ones; timm's list of convolutions and poolings says the same as depths and widths.
LAYERS, OPTIONS = [8, "M", 16, 16, "M"], {"depths": (1, 2), "widths": (8, 16), "head_features": 4096}


def narrow(norm: bool, **options) -> tuple[models.Model, torch.nn.Module]:
    reference = VGG(LAYERS, norm_layer=torch.nn.BatchNorm2d if norm else None, mlp_ratio=1 / 64, **options)
    reference = oracle.randomise(reference.eval())
    reference.pre_logits.fc2 = oracle.randomise(torch.nn.Conv2d(64, 64, 1))
    reference.head.fc = oracle.randomise(torch.nn.Linear(64, reference.num_classes))
    model = models.create(
        "vgg11_bn" if norm else "vgg11", reference.num_classes, **{**OPTIONS, "head_features": 64}, input_size=32
    )
    return model, reference


@pytest.mark.parametrize("size", [(29, 16), 28, (40, 34)])  # a last map smaller than, as large as, larger than 7x7
@pytest.mark.parametrize("norm", [False, True])
def test_logits_are_timms(norm, size):
    model, reference = narrow(norm)
    assert_parity(model, reference, images=oracle.image(size))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
def test_pooling_up_is_torchs(length):
    x = oracle.image((length, 9))
    expected = torch.nn.functional.adaptive_avg_pool2d(oracle.to_torch(x), (7, 9)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(at_least(jnp.asarray(x), 7), expected, rtol=1e-5, atol=1e-6)


def test_heads_and_intermediates_are_timms():
    model, reference = narrow(True)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(32)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    output = model.replace(n_classes=0).apply(variables, images, capture="stage_*")
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    for i, expected in enumerate(maps):
        assert relative_error(output.intermediates[f"stage_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5


def test_training_is_timms():
    model, reference = narrow(True, num_classes=5)
    images = oracle.image(32, batch=3)
    variables = variables_from(model.spec(), oracle.state(reference))
    output = model.apply(variables, images, training=True)
    with torch.no_grad():  # timm drops a fifth of the hidden layer out unless told otherwise
        reference.train().pre_logits.drop.p = 0.0
        assert relative_error(output.value, reference(oracle.to_torch(images))) < 1e-5
    statistics = oracle.state(reference)
    for path, value in core.flatten(output.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_feature_info_is_timms():
    expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta("vgg16").feature_info]
    assert [(f.channels, f.reduction) for f in models.create("vgg16").feature_info] == expected
