"""XCiTs against timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from flaim.models.xcit import fourier_position_encoding
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from
from tests.weights.converters.test_timm import check

xcit = oracle.timm.models.xcit

# timm's options, and ours.
THEIRS = {"embed_dim": 32, "depth": 2, "num_heads": 4}
OURS = {"dim": 32, "depth": 2, "num_heads": 4}


def pair(name: str, size: int | tuple[int, int] = 32, classes: int = 1000, **options) -> tuple:
    """Our small model and timm's."""
    return models.create(name, input_size=size, n_classes=classes, **OURS, **options), oracle.create(
        name, num_classes=classes, **THEIRS
    )


# Patches of 8 and 16 pixels, class blocks that normalise the patches or not; sides that no patch divides.
@pytest.mark.parametrize(
    "name, size",
    [
        ("xcit_nano_12_p16_224", (64, 48)),
        ("xcit_tiny_24_p16_224", (75, 90)),
        ("xcit_nano_12_p8_224", (35, 50)),
        ("xcit_tiny_12_p8_224", (32, 56)),
    ],
)
def test_logits_are_timms(name, size):
    model, reference = pair(name, size)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(size))
    assert np.abs(first - second).max() > 1e-2 * np.abs(first).max()


def test_a_whole_small_model_is_timms():
    assert_parity(models.create("xcit_nano_12_p16_224"), oracle.create("xcit_nano_12_p16_224"))


@pytest.mark.parametrize("name", ["xcit_nano_12_p8_224", "xcit_tiny_12_p8_224"])
def test_heads_and_blocks_are_timms(name):
    model, reference = pair(name, (32, 40))
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image((32, 40))
    with torch.no_grad():
        blocks = reference.forward_intermediates(oracle.to_torch(images), intermediates_only=True)
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    found, pooled_found = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="block_*"),
            model.replace(n_classes=-1).apply(v, x),
        )
    )(variables, images)
    assert relative_error(found.value, features) < 1e-5
    assert relative_error(pooled_found.value, pooled) < 1e-5
    assert list(found.intermediates) == [f"block_{i}" for i in range(3)]
    for i, expected in enumerate(blocks, 1):
        assert relative_error(found.intermediates[f"block_{i}"], expected.permute(0, 2, 3, 1)) < 1e-5
    assert [(f.channels, f.reduction) for f in model.feature_info] == 3 * [(32, 8)]


def test_gradients_are_timms():
    assert_gradient_parity(*pair("xcit_tiny_12_p8_224", (32, 40), classes=5))


def test_training_is_timms():
    """Batch norms of the patch embedding and of the depthwise convolutions normalise with the batch's statistics."""
    model, reference = pair("xcit_nano_12_p8_224", classes=5)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(32, batch=4)
    expected = reference.train()(oracle.to_torch(images)).detach()
    output = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    assert relative_error(output.value, expected) < 1e-5
    updated = variables_from({"batch_stats": model.spec()["batch_stats"]}, {
        name: value for name, value in oracle.state(reference).items() if "running_" in name
    })  # fmt: skip
    for path, value in core.flatten({"batch_stats": output.batch_stats}).items():
        assert relative_error(value, core.flatten(updated)[path]) < 1e-5, path


@pytest.mark.parametrize("size", [(3, 5), (1, 7)])
def test_position_encoding_is_timms(size):
    reference = oracle.randomise(xcit.PositionalEncodingFourier(dim=8))
    x = jnp.zeros((1, *size, 8))
    variables = variables_from(core.spec(fourier_position_encoding, x), oracle.state(reference))
    with torch.no_grad():
        expected = reference(1, *size).permute(0, 2, 3, 1)
    assert relative_error(jax.jit(fourier_position_encoding)(variables, x), expected) < 2e-6


def test_the_authors_checkpoints():
    reference = oracle.create("xcit_nano_12_p8_224", **THEIRS)
    old = {name.replace("pos_embed.", "pos_embeder."): value for name, value in oracle.state(reference).items()}
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = [old.pop(f"cls_attn_blocks.{i}.attn.{letter}.{kind}") for letter in "qkv"]
            old[f"cls_attn_blocks.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
    check("xcit_nano_12_p8_224", reference, old, xcit.checkpoint_filter_fn, **OURS)


def test_patches_are_powers_of_two():
    with pytest.raises(ValueError, match="patch_embed: patch_size is 12; it must be a power of two"):
        models.create("xcit_nano_12_p8_224", patch_size=12).spec()
