"""Xception against timm."""

import pytest
import torch

import flaim_core as core
from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, torch_name, variables_from


@pytest.fixture(scope="module")
def reference():
    return oracle.create("legacy_xception", num_classes=5)


@pytest.mark.parametrize("size", [64, (75, 50)])
def test_logits_are_timms(reference, size):
    assert_parity(models.create("legacy_xception", 5, input_size=size), reference)


def test_heads_and_intermediates_are_timms(reference):
    model = models.create("legacy_xception", 5, input_size=64)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    output = model.replace(n_classes=0).apply(variables, images, capture="stage_*")
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    for i, expected in enumerate(maps):
        assert relative_error(output.intermediates[f"stage_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5


def test_training_is_timms(reference):
    model, state = models.create("legacy_xception", 5, input_size=96), oracle.state(reference)
    state = {name: value.copy() for name, value in state.items()}
    images = oracle.image(96, batch=3)
    output = model.apply(variables_from(model.spec(), state), images, training=True)
    with torch.no_grad():
        try:
            assert relative_error(output.value, reference.train()(oracle.to_torch(images))) < 1e-5
            statistics = {name: value.copy() for name, value in oracle.state(reference).items()}
        finally:
            reference.eval().load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    for path, value in core.flatten(output.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_feature_info_is_timms():
    expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta("legacy_xception").feature_info]
    assert [(f.channels, f.reduction) for f in models.create("legacy_xception").feature_info] == expected
