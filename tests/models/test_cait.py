"""CaiTs against timm."""

import jax
import numpy as np
import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from

# timm's options, and ours.
THEIRS = {"embed_dim": 32, "depth": 2, "num_heads": 4}
OURS = {"dim": 32, "depth": 2, "num_heads": 4}


def pair(size: int | tuple[int, int], classes: int = 1000) -> tuple:
    """Our small model and timm's."""
    model = models.create("cait_xxs24_224", input_size=size, n_classes=classes, **OURS)
    return model, oracle.create("cait_xxs24_224", img_size=size, num_classes=classes, **THEIRS)


def test_logits_are_timms():
    size = (32, 80)
    model, reference = pair(size)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(size))
    assert np.abs(first - second).max() > 1e-2 * np.abs(first).max()


def test_depths_and_ratios_are_timms():
    options = {"patch_size": 8, "qkv_bias": False, "mlp_ratio": 2}
    reference = oracle.create(
        "cait_s24_224", img_size=32, depth_token_only=3, mlp_ratio_token_only=3, **THEIRS, **options
    )
    assert_parity(
        models.create("cait_s24_224", input_size=32, class_depth=3, class_mlp_ratio=3, **OURS, **options), reference
    )


def test_a_whole_small_model_is_timms():
    assert_parity(models.create("cait_xxs24_224"), oracle.create("cait_xxs24_224"), images=oracle.image(224, batch=1))


def test_heads_and_blocks_are_timms():
    size = (32, 48)
    model, reference = pair(size)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(size)
    with torch.no_grad():
        blocks = reference.forward_intermediates(oracle.to_torch(images), intermediates_only=True, output_fmt="NLC")
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
        assert relative_error(found.intermediates[f"block_{i}"], expected) < 1e-5
    assert [(f.channels, f.reduction) for f in model.feature_info] == 3 * [(32, 16)]


def test_gradients_are_timms():
    assert_gradient_parity(*pair((32, 48), classes=5))


@pytest.mark.parametrize("name, init", [("cait_xxs24_224", 1e-5), ("cait_m36_384", 1e-6)])
def test_initial_layer_scale_is_timms(name, init):
    params = models.create(name, **OURS).init(jax.random.key(0))["params"]
    np.testing.assert_allclose(params["blocks"]["1"]["gamma_2"], init)
    np.testing.assert_allclose(params["blocks_token_only"]["0"]["gamma_1"], init)


def test_patches_must_fit():
    with pytest.raises(ValueError, match="an image of 40x32 does not divide into patches of 16x16"):
        models.create("cait_xxs24_224", input_size=(40, 32)).spec()
