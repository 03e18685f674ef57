"""DaViTs against timm, an option at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models.davit import spatial_attention
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity, variables_from

davit = oracle.timm.models.davit

SMALL = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
DIMS = (16, 24, 32, 48)


@pytest.mark.parametrize("size, window", [((8, 12), 4), ((7, 9), 4), ((3, 5), 4)])
def test_spatial_attention_is_timms(size, window):
    """Whole windows; padded ones; a map that is smaller than a window."""
    block = oracle.randomise(davit.SpatialBlock(8, 2, window_size=window))
    identity = torch.nn.Identity()
    block.cpe1 = block.norm1 = block.cpe2 = identity
    block.mlp = None
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *size, 8)), jnp.float32)
    attend = functools.partial(spatial_attention, num_heads=2, window=window)
    variables = variables_from(core.spec(attend, x), oracle.state(block.attn))
    with torch.no_grad():
        tensor = oracle.to_torch(np.asarray(x))
        expected = (block(tensor) - tensor).permute(0, 2, 3, 1)
    assert relative_error(jax.jit(attend)(variables, x), expected) < 1e-5


# Windows of 7 and of 12, channel attention as in DaViT and in Florence-2; a square image, and maps with odd sides.
@pytest.mark.parametrize("name", ["davit_tiny", "davit_base_fl"])
@pytest.mark.parametrize("size", [(112, 112), (75, 50)])
def test_logits_are_timms(name, size):
    reference = oracle.create(name, embed_dims=DIMS, num_classes=7, **SMALL)
    assert_parity(models.create(name, input_size=size, dims=DIMS, n_classes=7, **SMALL), reference)


def test_other_options_are_timms():
    options = {"mlp_ratio": 2, "qkv_bias": False, "head_norm_first": True}
    reference = oracle.create("davit_tiny", embed_dims=DIMS, window_size=4, in_chans=5, **SMALL, **options)
    model = models.create("davit_tiny", input_size=64, dims=DIMS, window=4, in_channels=5, **SMALL, **options)
    assert_parity(model, reference)


def test_a_published_model_is_timms():
    assert_parity(models.create("davit_tiny"), oracle.create("davit_tiny"), images=oracle.image(224, batch=1))


def test_heads_and_stages_are_timms():
    reference = oracle.create("davit_tiny", embed_dims=DIMS, **SMALL)
    model = models.create("davit_tiny", input_size=64, dims=DIMS, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (24, 8), (32, 16), (48, 32)]


def test_gradients_are_timms():
    options = {"depths": (1, 2), "num_heads": (1, 2)}
    reference = oracle.create("davit_tiny", embed_dims=(8, 16), num_classes=5, **options)
    assert_gradient_parity(models.create("davit_tiny", input_size=40, dims=(8, 16), n_classes=5, **options), reference)
