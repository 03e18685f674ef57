"""BEiT against timm's, narrow and two blocks deep, and its relative position biases."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.weights import CheckpointInfo, Preprocessing
from flaim.weights.assign import assign
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from

NAME = "beit_base_patch16_224"
NARROW = {"depth": 2, "num_heads": 3}


def _pair(size=(48, 80), name: str = NAME, n_classes: int = 10, options=None, arguments=None):
    """A narrow variant of ours and timm's with random parameters."""
    reference = oracle.create(
        name, img_size=size, embed_dim=24, num_classes=n_classes, **{"mlp_ratio": 4, **NARROW, **(arguments or {})}
    )
    return models.create(name, n_classes, size, dim=24, **NARROW, **(options or {})), reference


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 7)])
def test_relative_position_table_is_timms(size):
    reference = oracle.randomise(oracle.timm.models.beit.RelativePositionBias(size, 3))
    x = jnp.zeros((1, 1 + size[0] * size[1], 6))
    variables = variables_from(
        core.spec(core.class_relative_position_table, x, num_heads=3, size=size), oracle.state(reference)
    )
    found = core.class_relative_position_table(variables, x, num_heads=3, size=size)
    np.testing.assert_array_equal(found, reference().detach())


# Ours, timm's: each option that gives other leaves.
OPTIONS = {
    "own": ({}, {}),
    "shared": (
        {"relative_positions": False, "shared_relative_positions": True, "absolute_positions": True},
        {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True, "use_abs_pos_emb": True},
    ),
    "both": ({"shared_relative_positions": True}, {"use_shared_rel_pos_bias": True}),
    "no biases": ({"qkv_bias": False, "layer_scale_init": None}, {"qkv_bias": False, "init_values": 0.0}),
    "class token": ({"average_pool": False}, {"global_pool": "token"}),
    "gated": (
        {"mlp": partial(core.glu, norm=core.layer_norm), "act": jax.nn.silu, "mlp_ratio": 3},
        {"swiglu_mlp": True, "scale_mlp": True, "mlp_ratio": 3},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_are_timms(name):
    options, arguments = OPTIONS[name]
    model, reference = _pair(options=options, arguments=arguments)
    variables = assert_parity(model, reference)
    first, second = model.apply(variables, oracle.image(model.input_size)).value
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(first).max()


def test_published_size_is_timms():
    name = "beitv2_base_patch16_224"
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(224, batch=1))


@pytest.mark.parametrize("name", ["both", "class token"])
def test_tokens_blocks_and_pooled_features_are_timms(name):
    options, arguments = OPTIONS[name]
    model, reference = _pair(options=options, arguments=arguments)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(model.input_size)
    with torch.no_grad():
        tokens = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(tokens, pre_logits=True)
        blocks = reference.forward_intermediates(
            oracle.to_torch(images), output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    found, pooled_found = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="block_*"),
            model.replace(n_classes=-1).apply(v, x).value,
        )
    )(variables, images)
    assert relative_error(found.value, tokens) <= 1e-5
    assert relative_error(pooled_found, pooled) <= 1e-5
    assert list(found.intermediates) == ["block_0", "block_1", "block_2"]
    for i, (patches, prefix) in enumerate(blocks, 1):
        assert relative_error(found.intermediates[f"block_{i}"], torch.cat([prefix, patches], 1)) <= 1e-5


def test_gradients_are_timms():
    options, arguments = OPTIONS["both"]
    assert_gradient_parity(*_pair(options=options, arguments=arguments))


def test_keys_have_no_bias():
    """A fresh model's queries and values have biases of zero, too."""
    model, _ = _pair()
    attn = model.init(jax.random.key(0))["params"]["blocks"]["0"]["attn"]
    assert set(attn) == {"qkv", "q_bias", "v_bias", "proj", "relative_position_bias_table"}
    assert set(attn["qkv"]) == {"kernel"}


def test_other_images_need_another_table():
    model, _ = _pair()
    with pytest.raises(ValueError, match=r"(?s)made for images of 48x80, got 64x64.*relative_position_bias_table"):
        model.apply(model.init(jax.random.key(0)), oracle.image(64))


@pytest.mark.parametrize("size", [(96, 96), (64, 112)])
def test_tables_for_other_images_are_timms(size):
    """The published models have no position embeddings; theirs are resampled like other Vision Transformers'."""
    options, arguments = {"absolute_positions": True, **OPTIONS["both"][0]}, {"use_abs_pos_emb": True}
    arguments |= OPTIONS["both"][1]
    _, reference = _pair((64, 64), options=options, arguments=arguments)
    model, larger = _pair(size, options=options, arguments=arguments)
    larger.load_state_dict(oracle.timm.models.beit.checkpoint_filter_fn(reference.state_dict(), larger))
    info = CheckpointInfo(
        family="beit", architecture=NAME, n_classes=10, preprocessing=Preprocessing(input_size=(64, 64))
    )
    found = core.flatten(assign(model, oracle.state(reference), info, key=jax.random.key(0)))
    for path, value in core.flatten(variables_from(model.spec(), oracle.state(larger))).items():
        assert relative_error(found[path], value) < 5e-6, path
