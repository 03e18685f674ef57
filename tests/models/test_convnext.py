"""ConvNeXts against timm, an option at a time."""

import jax
import numpy as np
import pytest

from flaim import models
from tests import oracle
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity

# 3x3 kernels compile in a fraction of the time; the published sizes are those of the test_convnext models.
SMALL = {"depths": (1, 1, 2, 1), "dims": (24, 32, 48, 64), "kernel_sizes": 3}
# Each has another stem, norm, activation, head, response norm or storage of its dense layers than the others.
ONE_PER_OPTION = [
    "convnext_zepto_rms_ols",
    "convnext_atto_ols",
    "convnext_atto_rms",
    "convnext_nano_ols",
    "convnext_tiny",
    "convnext_tiny_hnf",
    "convnext_xxlarge",
    "convnextv2_atto",
    "convnextv2_tiny",
]


@pytest.mark.parametrize("name", ONE_PER_OPTION)
def test_logits_are_timms(name):
    assert_parity(models.create(name, input_size=64, **SMALL), oracle.create(name, **SMALL))


@pytest.mark.parametrize("name", ["test_convnext", "test_convnext3"])
def test_whole_small_models_are_timms(name):
    assert_parity(models.create(name), oracle.create(name))


def test_a_hidden_layer_in_the_head_is_timms():
    model = models.create("convnext_large_mlp", input_size=64, head_hidden=40, **SMALL)
    assert_parity(model, oracle.create("convnext_large_mlp", head_hidden_size=40, **SMALL))


@pytest.mark.parametrize("name", ["convnext_atto_ols", "convnextv2_tiny"])
def test_logits_are_timms_at_an_odd_size(name):
    model = models.create(name, input_size=(75, 50), n_classes=7, in_channels=5, **SMALL)
    assert_parity(model, oracle.create(name, in_chans=5, num_classes=7, **SMALL))


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_tiny_hnf"])
def test_heads_and_stages_are_timms(name):
    reference = oracle.create(name, **SMALL)
    model = models.create(name, input_size=64, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(24, 4), (24, 4), (32, 8), (48, 16), (64, 32)]


@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_atto"])
def test_gradients_are_timms(name):
    model = models.create(name, input_size=64, n_classes=5, **SMALL)
    assert_gradient_parity(model, oracle.create(name, num_classes=5, **SMALL))


def test_initial_layer_scale_is_the_papers():
    gamma = models.create("test_convnext").init(jax.random.key(0))["params"]["stages"]["2"]["blocks"]["3"]["gamma"]
    np.testing.assert_allclose(gamma, 1e-6)


def test_scanned_stages_without_stochastic_depth_draw_nothing():
    model = models.create("test_convnext", input_size=32, n_classes=5, scan=True, kernel_sizes=3)
    variables, images = model.init(jax.random.key(0)), oracle.image(32)
    expected = model.replace(scan=False).apply(variables, images).value
    np.testing.assert_allclose(model.apply(variables, images, training=True).value, expected, rtol=1e-4, atol=1e-5)
