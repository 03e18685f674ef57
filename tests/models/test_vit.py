"""Vision Transformers against timm's, narrow and two blocks deep: each block, norm, token, pooling and head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models import vit
from tests import oracle
from tests.parity import assert_parity, variables_from

WIDTH, DEPTH, HEADS = 48, 2, 3

# Between them, every option of the variant table with each of its values.
VARIANTS = (
    "vit_base_patch16_plus_240",  # layer scale
    "vit_base_patch16_224_miil",  # no bias of queries, keys and values
    "vit_small_patch16_18x2_224",  # parallel branches
    "vit_base_patch16_xp_224",  # merged layers, RMS norms, normalised queries and keys
    "vit_pwee_patch16_reg1_gap_256",  # merged layers with biases
    "vit_dwee_patch16_reg1_gap_256",  # differential attention
    "vit_dpwee_patch16_reg1_gap_256",  # the same with merged layers
    "vit_base_patch16_rpn_224",  # norms after the branches
    "eva_large_patch14_196",  # average pooling beside a class token
    "beit3_base_patch16_224",  # norms inside the branches
    "deit_tiny_distilled_patch16_224",  # two heads
    "deit3_small_patch16_224",  # no position embedding of the class token
    "vit_medium_patch16_gap_256",  # the last norm before average pooling
    "vit_so150m2_patch16_reg1_gap_256",  # position embedding of a register
    "vit_base_patch32_clip_quickgelu_224",  # norm before the blocks
    "vit_base_patch32_siglip_256",  # attention pooling
    "vit_so400m_patch14_siglip_gap_384",  # images that patches do not fill
    "vit_giant_patch14_reg4_dinov2",  # gated MLP, class and register tokens
    "vit_base_patch16_radio_v3",  # no last norm
    "aimv2_large_patch14_224",  # split gates, norm of the embedding, no biases
    "test_vit3",  # pooling that includes the register
)


def _pair(name: str, n_classes: int = 10, **overrides) -> tuple[models.Model, torch.nn.Module]:
    """A narrow variant of ours and timm's with random parameters."""
    config = vit.VARIANTS[name]
    size = 3 * config.get("patch_size", 16) + (5 if config.get("drop_remainder") else 0)
    model = models.create(name, n_classes, size, dim=WIDTH, depth=DEPTH, num_heads=HEADS, **overrides)
    narrow = dict(img_size=size, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=max(n_classes, 0))
    return model, oracle.create(name, **narrow)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_timms(name):
    assert_parity(*_pair(name))


def test_published_size_is_timms():
    assert_parity(models.create("test_vit"), oracle.create("test_vit"))


@pytest.mark.parametrize("name", ["test_vit3", "deit_tiny_distilled_patch16_224", "eva_large_patch14_196"])
def test_tokens_and_pooled_features_are_timms(name):
    model, reference = _pair(name)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size)
    with torch.no_grad():
        tokens = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(tokens, pre_logits=True)
    for n_classes, expected in ((0, tokens), (-1, pooled)):
        headless = model.replace(n_classes=n_classes)
        found = jax.jit(lambda v, x, model=headless: model.apply(v, x).value)(variables, images)
        assert oracle.relative_error(found, expected) <= 1e-5


def test_intermediates_are_timms():
    model, reference = _pair("vit_giant_patch14_reg4_dinov2")
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size)
    with torch.no_grad():
        expected = reference.forward_intermediates(
            oracle.to_torch(images), output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    found = jax.jit(lambda v, x: model.apply(v, x, capture="block_*").intermediates)(variables, images)
    assert list(found) == ["block_0", "block_1", "block_2"]
    for i, (patches, prefix) in enumerate(expected, 1):
        assert oracle.relative_error(found[f"block_{i}"], torch.cat([prefix, patches], 1)) <= 1e-5


def test_gradients_are_timms():
    model, reference = _pair("vit_dwee_patch16_reg1_gap_256")
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size)
    weights = np.random.default_rng(1).standard_normal((2, 10), dtype=np.float32)

    found = jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, images).value * weights)))(variables)
    (reference(oracle.to_torch(images)) * torch.from_numpy(weights)).sum().backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    expected = core.flatten(variables_from(model.spec(), gradients))
    largest = max(float(jnp.abs(g).max()) for g in expected.values())
    for path, gradient in core.flatten(found).items():
        assert float(jnp.abs(gradient - expected[path]).max()) <= 1e-4 * largest, path


def test_scanned_blocks_keep_their_own_schedules():
    model, reference = _pair("vit_dpwee_patch16_reg1_gap_256", drop_path_rate=0.5)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size, batch=8)

    def run(model):
        options = dict(training=True, rng=jax.random.key(1), capture="block_*")
        return jax.jit(lambda v, x: model.apply(v, x, **options))(variables, images)

    expected, found = run(model), run(model.replace(scan=True))
    assert oracle.relative_error(found.value, expected.value) <= 1e-5
    assert list(found.intermediates) == list(expected.intermediates)
    for block, value in expected.intermediates.items():
        assert oracle.relative_error(found.intermediates[block], value) <= 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_stays_bfloat16(name):
    model, _ = _pair(name, dtype="bfloat16", scan=True)
    output = jax.eval_shape(
        lambda v, x: model.apply(v, x, training=True, rng=jax.random.key(0), capture="*"),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.spec()),
        model.image(),
    )
    assert {x.dtype for x in (output.value, *output.intermediates.values())} == {jnp.dtype(jnp.bfloat16)}


def test_options_that_do_not_fit_together_are_errors():
    with pytest.raises(ValueError, match="class_token=False"):
        models.create("vit_tiny_patch16_224", class_token=False).spec()
    with pytest.raises(ValueError, match="no place for sub_norm"):
        models.create("vit_pwee_patch16_reg1_gap_256", sub_norm=core.layer_norm).spec()
    with pytest.raises(ValueError, match="225x225 does not divide into patches of 16x16"):
        models.create("vit_tiny_patch16_224", input_size=225).spec()
