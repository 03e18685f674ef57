"""Resampling on load against timm's own functions."""

import numpy as np
import pytest
import torch

from flaim.weights.resample import adapt_input_channels, resample_position_embedding, resample_relative_table
from tests import oracle
from tests.oracle import timm

ROUNDING = 2e-6


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("new", [(14, 14), (24, 24), (7, 7), (10, 21), (16, 9)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_position_embedding(new, prefix):
    old = (14, 14)
    embedding = normal(1, 196 + prefix, 8)
    expected = timm.layers.resample_abs_pos_embed(torch.from_numpy(embedding), new, old, prefix)
    found = resample_position_embedding(embedding, old, new)
    assert oracle.relative_error(found, expected) < ROUNDING


@pytest.mark.parametrize(("interpolation", "align_corners"), [("bilinear", None), ("bilinear_aligned", True)])
@pytest.mark.parametrize("new", [(24, 24), (7, 9)])
def test_position_embedding_bilinear(interpolation, align_corners, new):
    embedding = normal(1, 97, 8)
    options = {"interpolation": "bilinear", "antialias": False, "align_corners": align_corners}
    expected = timm.layers.resample_abs_pos_embed(torch.from_numpy(embedding), new, (8, 12), 1, **options)
    found = resample_position_embedding(embedding, (8, 12), new, interpolation=interpolation)
    assert oracle.relative_error(found, expected) < ROUNDING


@pytest.mark.parametrize("new", [(12, 12), (5, 5), (7, 4), (16, 7), (1, 1)])
def test_flat_table(new):
    table = normal(13 * 13, 3)
    shape = ((2 * new[0] - 1) * (2 * new[1] - 1), 3)
    expected = timm.layers.resize_rel_pos_bias_table(torch.from_numpy(table), new, shape)
    assert oracle.relative_error(resample_relative_table(table, (7, 7), new), expected) < ROUNDING


@pytest.mark.parametrize("new", [(12, 12), (7, 4)])
def test_flat_table_with_rows_of_a_class_token(new):
    table = normal(13 * 13 + 3, 3)
    shape = ((2 * new[0] - 1) * (2 * new[1] - 1) + 3, 3)
    expected = timm.layers.resize_rel_pos_bias_table(torch.from_numpy(table), new, shape)
    assert oracle.relative_error(resample_relative_table(table, (7, 7), new), expected) < ROUNDING


@pytest.mark.parametrize("new", [(12, 12), (6, 8)])
def test_table_of_planes(new):
    table = normal(4, 13, 13)
    shape = (4, 2 * new[0] - 1, 2 * new[1] - 1)
    expected = timm.layers.resize_rel_pos_bias_table(torch.from_numpy(table), new, shape)
    assert oracle.relative_error(resample_relative_table(table, (7, 7), new), expected) < ROUNDING


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_input_channels(channels):
    kernel = normal(6, 3, 5, 5)
    expected = timm.models.adapt_input_conv(channels, torch.from_numpy(kernel.copy())).permute(2, 3, 1, 0)
    found = adapt_input_channels(kernel.transpose(2, 3, 1, 0), channels)
    assert oracle.relative_error(found, expected) < ROUNDING
