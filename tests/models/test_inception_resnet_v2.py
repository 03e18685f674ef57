"""Inception-ResNet V2 against timm, with all its blocks once and whole."""

import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, variables_from


def shortened(reference: torch.nn.Module, depths: tuple[int, ...]) -> torch.nn.Module:
    for name, depth in zip(("repeat", "repeat_1", "repeat_2"), depths):
        setattr(reference, name, getattr(reference, name)[:depth])
    return reference


@pytest.fixture(scope="module")
def reference():
    return shortened(oracle.create("inception_resnet_v2", num_classes=5), (2, 1, 1))


def create(**options) -> models.Model:
    return models.create("inception_resnet_v2", 5, depths=(2, 1, 1), **options)


@pytest.mark.parametrize("size", [75, (130, 107)])
def test_logits_are_timms(reference, size):
    assert_parity(create(input_size=size), reference)


def test_a_whole_network_is_timms():
    assert_parity(models.create("inception_resnet_v2", input_size=75), oracle.create("inception_resnet_v2"))


def test_heads_and_intermediates_are_timms(reference):
    model = create(input_size=107)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(107)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    output = model.replace(n_classes=0).apply(variables, images, capture="stage_*")
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    for i, expected in enumerate(maps):
        assert relative_error(output.intermediates[f"stage_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5


def test_feature_info_is_timms():
    expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta("inception_resnet_v2").feature_info]
    assert [(f.channels, f.reduction) for f in models.create("inception_resnet_v2").feature_info] == expected
