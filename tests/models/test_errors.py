"""Images and options that a network can do nothing with: the error says where, what was given, what is needed."""

import jax
import jax.numpy as jnp
import pytest

import flaim_core as core
from flaim import models
from tests.small import SMALL, small

SIDES = (1, 3, 31)
# Of these sides, those at which a family's small variant has no map left to put out.
TOO_SMALL = {
    "convmixer": {1, 3},
    "convnext": {1, 3, 31},
    "densenet": {1, 3},
    "hornet": {1, 3},
    "inception_resnet_v2": {1, 3, 31},
    "inception_v3": {1, 3, 31},
    "nasnet": {1},
    "pit": {1, 3},
    "pvt_v2": {1, 3},
    "vgg": {1, 3},
    "xception": {1, 3},
}


def shapes(model: models.Model) -> dict:
    return jax.tree.map(core.shape_struct, model.spec())


@pytest.mark.parametrize("family", models.families())
def test_no_images_give_no_logits(family):
    model = small(family)
    output = jax.eval_shape(lambda v, x: model.apply(v, x, capture="*"), shapes(model), model.image(0))
    assert output.value.shape == (0, 7)
    assert {x.shape[0] for x in output.intermediates.values()} == {0}
    with pytest.raises(ValueError, match=f"{model.name}: a batch of no images has no statistics to train with"):
        jax.eval_shape(lambda v, x: model.apply(v, x, training=True), shapes(model), model.image(0))


@pytest.mark.parametrize("family", models.families())
def test_small_images_work_or_say_what_is_too_small(family):
    for side in SIDES:
        model = small(family, input_size=side, n_classes=0)
        try:
            value, _ = core.shapes(model._call, model.image())
        except ValueError as error:
            divides = ("does not divide into patches", "an input size that is a multiple of")
            assert any(words in str(error) for words in divides) or (
                f"{model.name}: images of {side}x{side} are too small: " in str(error)
                and "is smaller than a window of" in str(error)
                and side in TOO_SMALL[family]
            )
        else:
            assert value.size and side not in TOO_SMALL.get(family, ())


def test_too_small_images_at_a_call():
    """Not what another size of images would say, that the model can be created for them."""
    model = small("vgg", input_size=64)
    with pytest.raises(ValueError, match=r"^vgg11_bn: images of 3x3 are too small: a feature map of 1x1 is smaller"):
        jax.eval_shape(lambda v, x: model.apply(v, x), shapes(model), jax.ShapeDtypeStruct((1, 3, 3, 3), jnp.float32))
    with pytest.raises(ValueError, match=r"Conv2d_2a_3x3/conv: a feature map of 1x1 is smaller than a window of 3x3"):
        models.create("inception_v3", input_size=4).spec()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test_vit", {"num_heads": 5}, "blocks: width 64 does not divide into 5 heads"),
        ("test_vit", {"num_heads": 0}, "blocks: width 64 does not divide into 0 heads"),
        ("vit_pwee_patch16_reg1_gap_256", {"num_heads": 7}, "blocks: width 256 does not divide into 7 heads"),
        ("swin_tiny_patch4_window7_224", {"dim": 40}, "layers/0/blocks/0/attn: width 40 does not divide into 3 heads"),
        ("swin_tiny_patch4_window7_224", {"num_heads": (3, 6)}, r"4 depths need as many num_heads, got 2: \(3, 6\)"),
        ("test_maxvit", {"dims": (16, 32, 64, 128)}, "attn_block: width 16 is smaller than a head, 32"),
        ("test_maxvit", {"dims": (32,)}, "4 depths need as many dims, got 1"),
        ("resnet18", {"depths": (2, 2, 2, 2, 2)}, "5 depths need as many widths, got 4"),
        ("resnet18", {"branch": ()}, "4 depths need as many branch, got 0"),
        ("resnetv2_18", {"depths": (1,) * 5}, "5 depths need as many widths, got 4"),
        ("test_convnext", {"dims": (24, 32)}, "4 depths need as many dims, got 2"),
        ("vgg11", {"widths": (8, 8)}, "5 depths need as many widths, got 2"),
        ("nasnetalarge", {"features": 48}, "cell_stem_0/.*: 1 groups do not divide .* into 0 features"),
    ],
)
def test_options_that_do_not_fit_together(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **options).spec()


def test_every_family_that_can_be_too_small_is_known():
    assert set(TOO_SMALL) <= set(SMALL)
