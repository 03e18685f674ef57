"""`jax.export` with symbolic sizes: any batch for every family, any image for those that are fully convolutional."""

import jax
import jax.numpy as jnp
import pytest

import flaim_core as core
from flaim import models
from tests.oracle import relative_error
from tests.small import UNLIKE, case, images, randomised, small

PLATFORMS = ["cpu", "cuda", "tpu"]
# Where a leaf is made for one image size, and which.
FIXED = {
    "cait": "pos_embed",
    "beit": "blocks/0/attn/relative_position_bias_table",
    "gcvit": "stages/0/blocks/0/attn/rel_pos/relative_position_bias_table",
    "hornet": "stages/1/0/gnconv/dwconv/complex_weight",
    "maxvit": "stages/0/blocks/0/attn_block/attn/rel_pos",
    "nest": "levels/0/pos_embed",
    "pit": "pos_embed",
    "swin": "layers/0/blocks/0/attn/relative_position_bias_table",
    "swinv2": "layers/0/blocks/0/attn/cpb_mlp",
    "vit": "pos_embed",
}
# Families whose images have to divide into patches, and the size of these.
PATCHES = {"eva": 16}


@pytest.fixture(params=models.families(), scope="module")
def family(request):
    return request.param


def shapes_of(tree):
    return jax.tree.map(core.shape_struct, tree)


def exported(model, variables, shape: str, constraints=()):
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape, constraints=constraints), jnp.float32)
    run = jax.jit(lambda v, x: model.apply(v, x).value)
    program = jax.export.export(run, platforms=PLATFORMS)(shapes_of(variables), x)
    return jax.export.deserialize(program.serialize())


def test_sizes(family):
    """Any number of images, and any height and width where no leaf is made for one size."""
    model, variables, x, expected = case(family)
    height, width = model.input_size
    if family in FIXED:
        with pytest.raises(ValueError, match=rf"(?s){model.name} does not take images of hxw.*{FIXED[family]} is made"):
            exported(model, variables, "b, h, w, 3")
        program = exported(model, variables, f"b, {height}, {width}, 3")
    else:
        program = exported(model, variables, "b, h, w, 3", [f"h >= {height}", f"w >= {width}"])
    assert program.platforms == tuple(PLATFORMS) and str(program.out_avals[0].shape) == "(b, 7)"
    assert relative_error(program.call(variables, x), expected) < 1e-5
    if family in (*UNLIKE, *PATCHES):
        assert relative_error(program.call(variables, x[:1]), expected[:1]) < 1e-5
        if family not in FIXED:
            step = PATCHES.get(family, 1)
            larger = images(model.replace(input_size=(height + 5 * step, width + 14 * step)), 1)
            run = jax.jit(lambda v, x: model.apply(v, x).value)
            assert relative_error(program.call(variables, larger), run(variables, larger)) < 1e-5


@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet50d", {"depths": (1, 1)}),  # average pooling of last, partial windows
        ("tf_efficientnetv2_b0", {}),  # "same" padding, whose pixels depend on the size
        ("resnetblur50d", {"depths": (1, 1)}),  # blurred subsampling
        ("resnetaa50d", {"depths": (1, 1)}),  # pooled subsampling, of maps that it halves without a remainder
    ],
)
def test_other_ways_to_halve_a_map(name, options):
    model = models.create(name, n_classes=7, input_size=32, **options)
    variables = shapes_of(model.init(jax.random.key(0)))
    shape = "b, 8*h, 8*w, 3" if name == "resnetaa50d" else "b, h, w, 3"
    output = exported(model, variables, shape, ["h >= 32", "w >= 32"]).out_avals[0]
    assert str(output.shape) == "(b, 7)"


def test_sizes_that_have_to_be_compared_ask_for_a_constraint():
    model = small("vgg")  # pools small maps up
    with pytest.raises(ValueError, match=r"vgg11_bn does not take images of hxw.*constraints on height and width"):
        exported(model, randomised(model), "b, h, w, 3")
