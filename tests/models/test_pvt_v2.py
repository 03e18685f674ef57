"""PVT v2 against timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity, variables_from

DEPTHS, DIMS, HEADS = (1, 2, 1, 1), (16, 32, 40, 64), (1, 2, 5, 8)


def narrow(name: str, n_classes: int = 7, size=64, depths=DEPTHS) -> tuple[models.Model, torch.nn.Module]:
    dims, heads = DIMS[: len(depths)], HEADS[: len(depths)]
    reference = oracle.create(name, depths=depths, embed_dims=dims, num_heads=heads, num_classes=n_classes)
    return models.create(name, n_classes, depths=depths, dims=dims, num_heads=heads, input_size=size), reference


def assert_image_matters(model, variables):
    first, second = jax.jit(lambda v, x: model.apply(v, x).value)(variables, oracle.image(model.input_size))
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(first).max()


# Maps that the reduction divides; with remainders, both those of the halving and of the reduction. The linear variant's
# maps of 56 to 7 are pooled in whole bins, those of 24x30 to 3x4 in overlapping ones and up.
@pytest.mark.parametrize(
    "name, size",
    [
        ("pvt_v2_b0", 64),
        ("pvt_v2_b2", (75, 90)),
        ("pvt_v2_b5", (32, 41)),
        ("pvt_v2_b2_li", 224),
        ("pvt_v2_b2_li", (96, 119)),
    ],
)
def test_logits_are_timms(name, size):
    model, reference = narrow(name, size=size)
    assert_image_matters(model, assert_parity(model, reference))


def test_options_are_timms():
    options = {"depths": (1, 1), "num_heads": (2, 4), "qkv_bias": False}
    reference = oracle.create("pvt_v2_b0", embed_dims=(16, 24), sr_ratios=(1, 2), mlp_ratios=(2, 3.5), **options)
    options |= {"reduction_ratios": (1, 2), "mlp_ratios": (2, 3.5), "dims": (16, 24)}
    assert_parity(models.create("pvt_v2_b0", input_size=40, **options), reference)


def test_the_smallest_model_is_timms_at_its_own_size():
    assert_image_matters(model := models.create("pvt_v2_b0"), assert_parity(model, oracle.create("pvt_v2_b0")))


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_heads_and_stages_are_timms(name):
    model, reference = narrow(name)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (32, 8), (40, 16), (64, 32)]


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_gradients_are_timms(name):
    model, reference = narrow(name, 5, depths=(1, 1))
    assert_gradient_parity(model, reference)


def test_attention_weights_are_those_of_the_reduced_map():
    model, reference = narrow("pvt_v2_b0")
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    found = model.apply(variables, images, capture="*/weights").intermediates
    assert found["stages/1/blocks/1/attn/weights"].shape == (2, 2, 64, 4)
    assert found["stages/3/blocks/0/attn/weights"].shape == (2, 8, 4, 4)
    for weights in found.values():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_pooled_maps_of_any_size_are_exported():
    model, reference = narrow("pvt_v2_b2_li", depths=(1, 1))
    variables = variables_from(model.spec(), oracle.state(reference))
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 3", constraints=["h >= 64", "w >= 64"]), jnp.float32)
    program = jax.export.export(jax.jit(lambda x: model.apply(variables, x).value))(x)
    images = oracle.image((75, 90))
    assert relative_error(program.call(images), oracle.run(reference, images)) < 1e-5


def test_images_that_are_too_small_say_so():
    with pytest.raises(ValueError, match=r"stages/0/blocks/0/attn/sr: .*7x7 is smaller than a window of 8x8"):
        models.create("pvt_v2_b0", input_size=28).spec()
