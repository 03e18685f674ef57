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
from tests.parity import assert_gradient_parity, assert_parity, torch_name, variables_from

# Four stages, as timm requires, of 1, 1, 3 and 1 blocks, 16 to 128 channels wide.
SMALL = {"depth": 6, "w0": 16, "wa": 16.0, "wm": 2.0, "group_size": 8}


def both(name: str, timm: dict | None = None, size=64, **options) -> tuple[models.Model, torch.nn.Module]:
    """flaim's and timm's `name`, both small; `timm` are options that timm has under other names."""
    options = {**SMALL, **options}
    own = {"head_width": timm["num_features"]} if timm and "num_features" in timm else {}
    return models.create(name, input_size=size, **options, **own), oracle.create(name, **options, **(timm or {}))


# Each has another block, shortcut, attention, norm, activation, rounding or head than the others.
@pytest.mark.parametrize(
    "name, options",
    [
        ("regnetx_002", {}),
        ("regnety_002", {}),
        ("regnety_008_tv", {"group_size": 24}),
        ("regnety_040_sgn", {}),
        ("regnetv_040", {}),
        ("regnetv_064", {}),
        ("regnetz_005", {"timm": {"num_features": 40}}),
        ("regnetz_040", {"bottle_ratio": 2.0}),
    ],
)
def test_logits_are_timms(name, options):
    model, reference = both(name, **options)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(64))
    assert relative_error(first, second) > 1e-2


def test_average_pooling_before_a_shortcuts_norm_is_timms():
    model = models.create("regnety_002", input_size=64, shortcut=regnet.average_shortcut, **SMALL)
    assert_parity(model, oracle.create("regnety_002", downsample="avg", **SMALL))


@pytest.mark.parametrize("name", ["regnety_002", "regnetv_064"])
def test_logits_are_timms_at_an_odd_size(name):
    assert_parity(*both(name, size=(75, 50)))


def test_the_smallest_published_network_is_timms():
    assert_parity(models.create("regnetx_002"), oracle.create("regnetx_002"), images=oracle.image(224, batch=1))


@pytest.mark.parametrize(
    "name, timm", [("regnetx_002", {}), ("regnetv_040", {}), ("regnetz_005", {"num_features": 40})]
)
def test_heads_and_stages_are_timms(name, timm):
    model, reference = both(name, timm)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features, stages = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    found, pooled_found = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="stage_*"),
            model.replace(n_classes=-1).apply(v, x),
        )
    )(variables, images)
    assert relative_error(found.value, features.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(pooled_found.value, pooled) < 1e-5
    assert list(found.intermediates) == [f"stage_{i}" for i in range(5)]
    for i, stage in enumerate(stages):
        assert relative_error(found.intermediates[f"stage_{i}"], stage.permute(0, 2, 3, 1)) < 1e-5
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(32, 2), (16, 4), (32, 8), (64, 16), (128, 32)]


@pytest.mark.parametrize("name", ["regnety_002", "regnetv_064"])
def test_gradients_are_timms(name):
    assert_gradient_parity(*both(name))


@pytest.mark.parametrize("name", ["regnety_002", "regnetv_040"])
def test_training_is_timms(name):
    model, reference = both(name)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64, batch=4)
    found = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    with torch.no_grad():
        expected = reference.train()(oracle.to_torch(images))
    assert relative_error(found.value, expected) < 1e-5
    statistics = oracle.state(reference)
    for path, value in core.flatten(found.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_blocks_begin_as_their_shortcuts_where_they_have_one():
    for name, value in (("regnety_002", 0), ("regnetz_005", 1)):
        variables = models.create(name, input_size=32, **SMALL).init(jax.random.key(0))
        np.testing.assert_array_equal(variables["params"]["s3"]["b2"]["conv3"]["bn"]["scale"], value)
