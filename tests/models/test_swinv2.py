"""Swin Transformers V2 against timm, and the attention that they are made of."""

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

swin_transformer_v2 = oracle.timm.models.swin_transformer_v2

SMALL = {"depths": (2, 2, 2, 1), "num_heads": (1, 2, 4, 8)}

# Map, window, shift, pretraining's window: whole windows; shifted and padded along both axes; a map that one window
# covers along one axis (where nothing is shifted) or both; windows of one row.
WINDOWS = [
    ((8, 12), (4, 6), (0, 0), 0),
    ((7, 11), (3, 5), (1, 2), 0),
    ((7, 11), (8, 5), (4, 2), 3),
    ((3, 5), (7, 7), (3, 3), 12),
    ((6, 8), (1, 4), (0, 2), 0),
]


@pytest.mark.parametrize("size, window, shift, pretrained", WINDOWS)
def test_window_attention_is_timms(size, window, shift, pretrained):
    block = swin_transformer_v2.SwinTransformerV2Block(
        8, size, num_heads=2, window_size=window, shift_size=shift, pretrained_window_size=pretrained
    )
    oracle.randomise(block)
    with torch.no_grad():
        block.attn.logit_scale[0] = 6  # exp(6) is more than the bound, 100
    options = {"num_heads": 2, "window": window, "shift": shift, "pretrained_window": pretrained}
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *size, 8)), jnp.float32)
    variables = variables_from(core.spec(core.cosine_window_attention, x, **options), oracle.state(block.attn))
    with torch.no_grad():
        expected = block._attn(torch.from_numpy(np.array(x)))
    found = jax.jit(partial(core.cosine_window_attention, **options))(variables, x)
    assert relative_error(found, expected) < 1e-5


def test_gradients_of_padding_are_finite():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 5, 5, 8)), jnp.float16)
    options = {"num_heads": 2, "window": 4}  # an initialised layer, whose padded queries and keys are all 0
    params = core.init(core.cosine_window_attention, jax.random.key(0), x, **options)
    gradients = jax.jit(jax.grad(lambda p: core.cosine_window_attention(p, x, **options).sum()))(params)
    assert all(jnp.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))


@pytest.mark.parametrize("size, features", [((6, 8), None), ((5, 7), 10)])
def test_patch_merging_is_timms(size, features):
    reference = oracle.randomise(swin_transformer_v2.PatchMerging(4, features))
    options = {"features": features, "norm": partial(core.layer_norm, eps=1e-5), "norm_first": False}
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, *size, 4)), jnp.float32)
    variables = variables_from(core.spec(core.patch_merging, x, **options), oracle.state(reference))
    with torch.no_grad():
        expected = reference(torch.from_numpy(np.array(x)))
    assert relative_error(core.patch_merging(variables, x, **options), expected) < 1e-5


# Whole windows in the first stages; maps of 18x10, 9x5, 5x3 and 3x2 tokens, with the units of a pretraining.
@pytest.mark.parametrize(
    "name, size, options",
    [
        ("swinv2_tiny_window8_256", (128, 128), {}),
        ("swinv2_base_window12to16_192to256", (72, 40), {}),
        ("swinv2_tiny_window16_256", (64, 48), {"window": (8, 4, (3, 4), 1)}),
    ],
)
def test_logits_are_timms(name, size, options):
    theirs = {"window_size": options["window"]} if options else {}
    reference = oracle.create(name, img_size=size, embed_dim=24, **SMALL, **theirs)
    assert_parity(models.create(name, input_size=size, dim=24, **SMALL, **options), reference)


def test_a_published_model_is_timms():
    name = "swinv2_tiny_window8_256"
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(256, batch=1))


def test_heads_and_stages_are_timms():
    name, size = "swinv2_tiny_window16_256", (64, 96)
    reference = oracle.create(name, img_size=size, embed_dim=16, **SMALL)
    model = models.create(name, input_size=size, dim=16, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (32, 8), (64, 16), (128, 32)]


def test_gradients_are_timms():
    name, size = "swinv2_base_window12to24_192to384", (72, 40)
    options = {"depths": (2, 2), "num_heads": (1, 2)}
    theirs = {"window_size": 8, **options}
    reference = oracle.create(name, img_size=size, embed_dim=16, num_classes=5, **theirs)
    assert_gradient_parity(models.create(name, input_size=size, dim=16, n_classes=5, window=8, **options), reference)


def test_a_larger_image_needs_no_other_weights():
    name = "swinv2_tiny_window8_256"
    options = {"depths": (2, 2), "num_heads": (1, 2)}
    reference = oracle.create(name, img_size=112, embed_dim=16, **options, dynamic_img_size=True)
    model = models.create(name, input_size=112, dim=16, **options)
    assert_parity(model, reference, images=oracle.image((120, 128)))


def test_branches_begin_at_zero():
    model = models.create("swinv2_tiny_window8_256", input_size=32, depths=(1,), dim=16, num_heads=(1,), n_classes=0)
    blocks = model.init(jax.random.key(0))["params"]["layers"]["0"]["blocks"]["0"]
    assert not blocks["norm1"]["scale"].any() and not blocks["norm2"]["scale"].any()
    np.testing.assert_allclose(blocks["attn"]["logit_scale"], np.log(10), rtol=1e-6)
