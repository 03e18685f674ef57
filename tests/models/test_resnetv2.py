"""Pre-activation ResNets against timm, an option at a time."""

import numpy as np
import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from

DEPTHS = (1, 2, 1, 1)


def reference_of(name: str, **options) -> torch.nn.Module:
    """timm's model with other options than its name stands for."""
    if "_bit" not in name:
        return oracle.create(name, **options)
    # What BiT's names stand for cannot be changed through them.
    return oracle.randomise(oracle.timm.models.resnetv2._create_resnetv2_bit(name, **options).eval())


# Each has another block, stem, shortcut, convolution or norm than the others.
ONE_PER_OPTION = ["resnetv2_50x1_bit", "resnetv2_18", "resnetv2_50t", "resnetv2_50d_gn", "resnetv2_50d_evos"]


@pytest.mark.parametrize("name", ONE_PER_OPTION)
@pytest.mark.parametrize("size", [64, (75, 50)])
def test_logits_are_timms(name, size):
    assert_parity(models.create(name, input_size=size, depths=DEPTHS), reference_of(name, layers=DEPTHS))


def test_gradients_of_standardised_convolutions_are_timms():
    model = models.create("resnetv2_50x1_bit", input_size=32, n_classes=5, depths=(1, 1), widths=(128, 256))
    reference = reference_of("resnetv2_50x1_bit", num_classes=5, layers=(1, 1), channels=(128, 256))
    assert_gradient_parity(model, reference)


def test_heads_and_stages_are_timms():
    reference = oracle.create("resnetv2_18d", layers=DEPTHS)
    model = models.create("resnetv2_18d", input_size=64, depths=DEPTHS)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
        stages = reference.forward_intermediates(oracle.to_torch(images), intermediates_only=True)
    output = model.replace(n_classes=0).apply(variables, images, capture="stage_*")
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5
    for found, expected in zip(output.intermediates.values(), stages, strict=True):
        assert relative_error(found, np.moveaxis(expected.numpy(), 1, -1)) < 1e-5
