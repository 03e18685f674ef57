"""RegNets against timm, an option at a time."""

import jax
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models import regnet
from tests import oracle
from tests.oracle import relative_error
from tests.parity import (
    assert_gradient_parity,
    assert_heads_and_intermediates_parity,
    assert_parity,
    torch_name,
    variables_from,
)

# Four stages, as timm requires, of 1, 1, 2 and 1 blocks, 16 to 128 channels wide.
SMALL = {"depth": 5, "w0": 16, "wa": 24.0, "wm": 2.0, "group_size": 8}


def calibrated(reference: torch.nn.Module) -> torch.nn.Module:
    """The model with running statistics of a batch: without shortcuts, the image would hardly matter otherwise."""
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches, here of one
    oracle.run(reference.train(), oracle.image(64, batch=8, seed=1))
    return reference.eval()


# Each has another block, shortcut, attention, norm, activation, rounding or head than the others; two sizes are odd.
@pytest.mark.parametrize(
    "name, size, options",
    [
        ("regnety_002", (75, 50), {}),
        ("regnety_008_tv", 64, {"group_size": 24}),
        ("regnety_040_sgn", 64, {}),
        ("regnetv_064", (75, 50), {}),
        ("regnetz_040", 64, {"bottle_ratio": 2.0}),
    ],
)
def test_logits_are_timms(name, size, options):
    options = {**SMALL, **options}
    reference = calibrated(oracle.create(name, **options))
    assert_parity(models.create(name, input_size=size, **options), reference)
    first, second = oracle.run(reference, oracle.image(size))
    assert relative_error(first, second) > 1e-2


def test_average_pooling_before_a_shortcuts_norm_is_timms():
    model = models.create("regnety_002", input_size=64, shortcut=regnet.average_shortcut, **SMALL)
    assert_parity(model, oracle.create("regnety_002", downsample="avg", **SMALL))


def test_the_smallest_published_network_is_timms():
    assert_parity(models.create("regnetx_002"), oracle.create("regnetx_002"), images=oracle.image(224, batch=1))


@pytest.mark.parametrize("name, head", [("regnetv_040", 0), ("regnetz_005", 40)])
def test_heads_and_stages_are_timms(name, head):
    reference = oracle.create(name, num_features=head, **SMALL)
    model = models.create(name, input_size=64, head_width=head, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(32, 2), (16, 4), (32, 8), (64, 16), (128, 32)]


def test_gradients_are_timms():
    model = models.create("regnety_002", input_size=64, n_classes=5, **SMALL)
    assert_gradient_parity(model, oracle.create("regnety_002", num_classes=5, **SMALL))


@pytest.mark.parametrize("name", ["regnety_002", "regnetv_064"])
def test_training_is_timms(name):
    reference, model = oracle.create(name, **SMALL), models.create(name, input_size=64, **SMALL)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64, batch=4)
    found = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    with torch.no_grad():
        expected = reference.train()(oracle.to_torch(images))
    assert relative_error(found.value, expected) < 1e-5
    statistics = oracle.state(reference)
    for path, value in core.flatten(found.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


@pytest.mark.parametrize("name, scale", [("regnety_002", 0), ("regnetz_005", 1)])
def test_blocks_begin_as_their_shortcuts_where_they_have_one(name, scale):
    variables = models.create(name, input_size=32, **SMALL).init(jax.random.key(0))
    np.testing.assert_array_equal(variables["params"]["s3"]["b2"]["conv3"]["bn"]["scale"], scale)
