"""DenseNets against timm."""

import numpy as np
import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, variables_from

SMALL = {"growth": 8, "depths": (2, 3, 1)}
TIMM_SMALL = {"growth_rate": 8, "block_config": (2, 3, 1)}


def small(stem: str = "", **options) -> tuple[models.Model, torch.nn.Module]:
    """Both libraries' DenseNet of six layers, with a plain stem or the deep and blurred one."""
    name, widths = ("densenetblur121d", (8, 8, 16)) if stem else ("densenet121", None)
    model = models.create(name, stem_widths=widths, **SMALL, **options)
    return model, oracle.create(name, **TIMM_SMALL)


@pytest.mark.parametrize("stem", ["", "blur"])
@pytest.mark.parametrize("size", [64, (75, 50)])
def test_logits_are_timms(stem, size):
    model, reference = small(stem, input_size=size)
    if stem:  # timm's makes its own widths of the stem: the growth rate twice, then what the blocks take
        assert reference.features.conv2.weight.shape[:2] == (16, 8)
    assert_parity(model, reference)


def test_densenet121_is_timms():
    assert_parity(models.create("densenet121", input_size=32), oracle.create("densenet121"))


def test_heads_and_stages_are_timms():
    model, reference = small(input_size=64)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
        stages = reference.forward_intermediates(oracle.to_torch(images), intermediates_only=True)
    assert (
        relative_error(model.replace(n_classes=0).apply(variables, images).value, features.permute(0, 2, 3, 1)) < 1e-5
    )
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5
    captured = model.apply(variables, images, capture="stage_*").intermediates
    assert [f.channels for f in model.feature_info] == [stage.shape[1] for stage in stages]
    for found, expected in zip(captured.values(), stages, strict=True):
        assert relative_error(found, np.moveaxis(expected.numpy(), 1, -1)) < 1e-5
