"""Swin Transformers against timm, and the kernels that they are made of."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity, variables_from

swin_transformer = oracle.timm.models.swin_transformer

SMALL = {"depths": (2, 2, 2, 1), "num_heads": (1, 2, 4, 8)}

# Map, window, shift: whole windows; then padded along one axis and both; then a map that one window covers along one
# axis (where nothing is shifted) or both; then shifted along one axis alone.
WINDOWS = [
    ((8, 12), (4, 6), (0, 0)),
    ((8, 12), (4, 6), (2, 3)),
    ((8, 10), (4, 4), (2, 2)),
    ((7, 11), (3, 5), (0, 0)),
    ((7, 11), (3, 5), (1, 2)),
    ((7, 11), (8, 5), (4, 2)),
    ((3, 5), (7, 7), (3, 3)),
    ((9, 9), (4, 4), (0, 1)),
]


@pytest.mark.parametrize("size, window, shift", WINDOWS)
def test_window_attention_is_timms(size, window, shift):
    block = swin_transformer.SwinTransformerBlock(8, size, num_heads=2, window_size=window, shift_size=shift)
    oracle.randomise(block)
    options = {"num_heads": 2, "window": window, "shift": shift}
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *size, 8)), jnp.float32)
    variables = variables_from(core.spec(core.window_attention, x, **options), oracle.state(block.attn))
    with torch.no_grad():
        expected = block._attn(torch.from_numpy(np.array(x)))
    found = jax.jit(partial(core.window_attention, **options))(variables, x)
    assert relative_error(found, expected) < 1e-5


def test_window_attention_sees_its_window_alone():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 8, 8, 4)), jnp.float32)
    for shift, window in ((0, (slice(0, 4), slice(4, 8))), (2, (slice(2, 6), slice(2, 6)))):
        options = {"num_heads": 2, "window": 4, "shift": shift}
        params = core.init(core.window_attention, jax.random.key(0), x, **options)
        attend = jax.jit(partial(core.window_attention, **options))
        changed = np.asarray(attend(params, x.at[0, 3, 5].add(100.0)) != attend(params, x)).any(-1)[0]
        expected = np.zeros((8, 8), bool)
        expected[window] = True
        np.testing.assert_array_equal(changed, expected)


def test_window_attention_says_what_is_wrong():
    x = jnp.zeros((1, 8, 8, 6))
    with pytest.raises(ValueError, match="windows of 4x4 cannot be shifted by 4x2"):
        core.spec(core.window_attention, x, num_heads=2, window=4, shift=(4, 2))
    with pytest.raises(ValueError, match="width 6 does not divide into 4 heads"):
        core.spec(core.window_attention, x, num_heads=4, window=4)


@pytest.mark.parametrize("size, features", [((6, 8), None), ((5, 7), 10)])
def test_patch_merging_is_timms(size, features):
    reference = oracle.randomise(swin_transformer.PatchMerging(4, features))
    options = {"features": features, "norm": partial(core.layer_norm, eps=1e-5)}
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *size, 4)), jnp.float32)
    variables = variables_from(core.spec(core.patch_merging, x, **options), oracle.state(reference))
    with torch.no_grad():
        expected = reference(torch.from_numpy(np.array(x)))
    assert relative_error(core.patch_merging(variables, x, **options), expected) < 1e-5


# Whole windows in the first stages; maps of 18x10, 9x5, 5x3 and 3x2 tokens; another window in each stage.
@pytest.mark.parametrize(
    "name, size",
    [
        ("swin_tiny_patch4_window7_224", (112, 112)),
        ("swin_tiny_patch4_window7_224", (72, 40)),
        ("swin_s3_tiny_224", (128, 64)),
    ],
)
def test_logits_are_timms(name, size):
    reference = oracle.create(name, img_size=size, embed_dim=24, **SMALL)
    assert_parity(models.create(name, input_size=size, dim=24, **SMALL), reference)


def test_heads_and_stages_are_timms():
    name, size = "swin_base_patch4_window12_384", (64, 96)
    reference = oracle.create(name, img_size=size, embed_dim=16, **SMALL)
    model = models.create(name, input_size=size, dim=16, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (32, 8), (64, 16), (128, 32)]


def test_gradients_are_timms():
    name, size = "swin_tiny_patch4_window7_224", (72, 40)
    options = {"depths": (2, 2), "num_heads": (1, 2)}
    reference = oracle.create(name, img_size=size, embed_dim=16, num_classes=5, **options)
    assert_gradient_parity(models.create(name, input_size=size, dim=16, n_classes=5, **options), reference)


def test_a_larger_image_needs_no_other_weights():
    name = "swin_tiny_patch4_window7_224"
    options = {"depths": (2, 2), "num_heads": (1, 2)}
    reference = oracle.create(name, img_size=112, embed_dim=16, **options, dynamic_img_size=True)
    model = models.create(name, input_size=112, dim=16, **options)
    assert_parity(model, reference, images=oracle.image((120, 128)))
