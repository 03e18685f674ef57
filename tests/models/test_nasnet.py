"""NASNet-A against timm, narrow and whole."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaim import models
from flaim.models.nasnet import max_pool, zero_padded_max_pool
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_parity, variables_from


@pytest.fixture(scope="module")
def reference():
    return oracle.create("nasnetalarge", num_classes=5, num_features=384, stem_size=8)


def create(**options) -> models.Model:
    return models.create("nasnetalarge", 5, features=384, stem_features=8, **options)


def test_logits_are_timms_at_an_odd_size(reference):
    assert_parity(create(input_size=(75, 50)), reference)


def test_heads_and_intermediates_are_timms(reference):
    model = create(input_size=64)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features, maps = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    output = model.replace(n_classes=-1).apply(variables, images, capture="stage_*")
    assert relative_error(output.value, pooled) < 1e-5
    for i, expected in enumerate(maps):
        assert relative_error(output.intermediates[f"stage_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(output.intermediates["stage_4"], features.permute(0, 2, 3, 1)) < 1e-5


def test_feature_info_is_timms():
    expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta("nasnetalarge").feature_info]
    assert [(f.channels, f.reduction) for f in models.create("nasnetalarge").feature_info] == expected


def test_zeros_beyond_the_border_win_over_negative_numbers():
    x = jnp.asarray(-np.abs(oracle.image(6)) - 1)
    found, plain = zero_padded_max_pool(x), max_pool(x)
    np.testing.assert_array_equal(found[:, :2, :2], plain[:, :2, :2])
    assert (found[:, 2] == 0).all() and (found[:, :, 2] == 0).all() and (plain < 0).all()
