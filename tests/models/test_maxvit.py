"""MaxViT and CoAtNet against timm, an option at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, torch_name, variables_from

# Each has another block, stem, norm, pooling, position bias, activation or head than the others.
ONE_PER_OPTION = [
    "coatnet_0_224",
    "coatnet_0_rw_224",
    "coatnet_3_rw_224",
    "coatnet_bn_0_rw_224",
    "coatnet_nano_cc_224",
    "coatnet_nano_rw_224",
    "coatnet_rmlp_1_rw_224",
    "coatnet_rmlp_2_rw_224",
    "coatnext_nano_rw_224",
    "maxvit_rmlp_small_rw_224",
    "maxvit_tiny_pm_256",
    "maxvit_tiny_rw_224",
    "maxvit_tiny_tf_224",
    "maxxvit_rmlp_nano_rw_256",
    "maxxvitv2_nano_rw_256",
]


def shrunken(name: str, size: int | tuple[int, int] = (64, 96), depths: tuple[int, int] = (1, 2)):
    """The first and the last stage of `name`, narrow and shallow, here and in timm."""
    variant = dict(models.create(name).config)
    dims, stem_dims = (32, 64), (16, 32)
    options = dict(depths=depths, dims=dims, stem_dims=stem_dims, blocks=variant["blocks"][::3])
    kinds = oracle.timm.models.maxxvit.model_cfgs[name.rpartition("_")[0]].block_type[::3]
    reference = oracle.create(
        name,
        img_size=size,
        num_classes=7,
        depths=depths,
        embed_dim=dims,
        stem_width=stem_dims,
        block_type=kinds,
    )
    return models.create(name, n_classes=7, input_size=size, **options), reference


@pytest.mark.parametrize("name", ONE_PER_OPTION)
def test_logits_are_timms(name):
    assert_parity(*shrunken(name))


@pytest.mark.parametrize("name", ["test_maxvit", "test_coatnet"])
def test_whole_model_is_timms(name):
    assert_parity(models.create(name), oracle.create(name))


def test_same_padding_of_an_odd_map_is_timms():
    assert_parity(*shrunken("maxvit_tiny_tf_224", size=44))


@pytest.mark.parametrize("name", ["maxvit_tiny_tf_224", "coatnet_bn_0_rw_224"])
def test_heads_are_timms(name):
    model, reference = shrunken(name)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(model.input_size)
    with torch.no_grad():
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    found = jax.jit(lambda v, x: [model.replace(n_classes=n).apply(v, x).value for n in (0, -1)])(variables, images)
    assert relative_error(found[0], features.permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(found[1], pooled) < 1e-5


@pytest.mark.parametrize("name", ["maxvit_tiny_tf_224", "coatnet_rmlp_1_rw_224"])
def test_gradients_are_timms(name):
    assert_gradient_parity(*shrunken(name, size=64, depths=(1, 1)))


def test_training_is_timms():
    model, reference = shrunken("maxvit_tiny_tf_224", size=64, depths=(1, 1))
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64, batch=4)
    output = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    assert relative_error(output.value, oracle.run(reference.train(), images)) < 1e-5
    state = oracle.state(reference)
    for path, found in core.flatten({"batch_stats": output.batch_stats}).items():
        assert relative_error(found, state[torch_name(path)]) < 1e-5, path


X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 8)), jnp.float32)


@pytest.mark.parametrize("attention", [core.block_attention, core.grid_attention])
def test_one_block_as_large_as_the_map_is_one_grid(attention):
    options = dict(num_heads=2, size=(4, 6), position_bias=core.relative_position_map)
    variables = core.init(core.block_attention, jax.random.key(0), X, **options)
    found, expected = attention(variables, X, **options), core.block_attention(variables, X, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_both_tables_hold_the_same_numbers_in_opposite_order():
    query, options = jnp.zeros((1, 24, 3, 1)), dict(size=(4, 6))
    table = np.random.default_rng(1).standard_normal((77, 3), dtype=np.float32)
    by_key = table[::-1].T.reshape(3, 7, 11)
    found = core.relative_position_map({"relative_position_bias_table": jnp.asarray(by_key)}, query, **options)
    expected = core.relative_position_table({"relative_position_bias_table": jnp.asarray(table)}, query, **options)
    np.testing.assert_array_equal(found, expected)


def test_what_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="width 8 does not divide into 3 heads"):
        core.spec(core.block_attention, X, num_heads=3, size=2)
    with pytest.raises(ValueError, match="feature map of 4x6 does not divide into grids of 4x4"):
        core.spec(core.grid_attention, X, num_heads=2, size=4)


def test_images_of_another_size_are_an_error():
    model = models.create("test_maxvit", input_size=96)
    with pytest.raises(ValueError, match=r"made for images of 96x96, got 64x64(.|\n)*_table: found shape \(25, 1\)"):
        jax.eval_shape(lambda x: model.apply(model.init(jax.random.key(0)), x).value, jnp.zeros((1, 64, 64, 3)))
