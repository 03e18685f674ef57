"""PiT against timm."""

import jax
import numpy as np
import pytest
import torch

from flaim import models
from flaim.weights.assign import assign
from flaim.weights.converters.timm import describe
from flaim.weights.errors import CheckpointError
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from

SMALL = {"depths": (1, 2, 1), "num_heads": (1, 2, 4), "head_dims": (8, 8, 8)}
TIMM_SMALL = {"depth": (1, 2, 1), "heads": (1, 2, 4), "base_dims": (8, 8, 8)}


# Overlapping patches that leave out pixels at the border; other patches and a distillation token.
@pytest.mark.parametrize("name, size", [("pit_s_224", (75, 52)), ("pit_b_distilled_224", (64, 64))])
def test_logits_are_timms(name, size):
    model = models.create(name, input_size=size, **SMALL)
    variables = assert_parity(model, oracle.create(name, img_size=size, **TIMM_SMALL))
    first, second = (model.apply(variables, oracle.image(size, seed=seed)).value for seed in (0, 1))
    assert relative_error(first, second) > 1e-2


def test_logits_are_timms_at_full_size():
    assert_parity(models.create("pit_ti_224"), oracle.create("pit_ti_224"), images=oracle.image(224, batch=1))


def test_gradients_are_timms():
    name, size = "pit_ti_distilled_224", (40, 48)
    reference = oracle.create(name, img_size=size, num_classes=5, **TIMM_SMALL)
    assert_gradient_parity(models.create(name, input_size=size, n_classes=5, **SMALL), reference)


@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_heads_and_stages_are_timms(name):
    size = (56, 72)
    reference = oracle.create(name, img_size=size, **TIMM_SMALL)
    model = models.create(name, input_size=size, **SMALL)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(size)
    with torch.no_grad():
        tokens, stages = reference.forward_intermediates(oracle.to_torch(images))
        pooled = reference.forward_head(tokens, pre_logits=True)
    found, pooled_found = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="stage_*"),
            model.replace(n_classes=-1).apply(v, x),
        )
    )(variables, images)
    assert relative_error(found.value, tokens) < 1e-5
    assert relative_error(pooled_found.value, pooled) < 1e-5
    assert list(found.intermediates) == [f"stage_{i}" for i in range(4)]
    for i, stage in enumerate(stages, 1):
        assert relative_error(found.intermediates[f"stage_{i}"], stage.permute(0, 2, 3, 1)) < 1e-5


def test_stages_are_described():
    info = models.create("pit_s_224").feature_info
    assert [(f.channels, f.reduction) for f in info] == [(144, 8), (144, 8), (288, 16), (576, 32)]


def test_the_authors_names_are_known_and_other_sizes_are_refused():
    name = "pit_ti_224"
    reference = oracle.create(name, img_size=48, **TIMM_SMALL)
    args = {"depth": [1, 2, 1], "heads": [1, 2, 4], "base_dims": [8, 8, 8], "img_size": 48}
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": {}, "model_args": args}
    info = describe({}, {"config.json": config}, "config.json")
    tensors = {
        key.replace("transformers.1.pool", "pools.0").replace("transformers.2.pool", "pools.1"): value
        for key, value in oracle.state(reference).items()
    }
    model = models.create(name, input_size=48, **SMALL)
    variables = assign(model, tensors, info, key=jax.random.key(0))
    expected = variables_from(model.spec(), oracle.state(reference))
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))
    with pytest.raises(CheckpointError, match=r"pos_embed: found shape \(1, 8, 5, 5\), expected \(1, 8, 7, 7\)"):
        assign(model.replace(input_size=(64, 64)), tensors, info, key=jax.random.key(0))
