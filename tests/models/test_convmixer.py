"""ConvMixers against timm, an option at a time."""

import jax
import pytest
import torch

import flaim_core as core
from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import (
    assert_gradient_parity,
    assert_heads_and_intermediates_parity,
    assert_parity,
    torch_name,
    variables_from,
)

SMALL = {"dim": 24, "depth": 2}


def created(name: str, size, **options) -> tuple[models.Model, torch.nn.Module]:
    return models.create(name, input_size=size, **options), timm_with(name, **options)


def timm_with(name: str, **options) -> torch.nn.Module:
    """timm's `name` with other options; timm itself takes none that its model functions set."""
    config = {"kernel_size": 9, "patch_size": 7, **options}
    act = {"act_layer": torch.nn.ReLU} if name == "convmixer_768_32" else {}
    return oracle.randomise(oracle.timm.models.convmixer.ConvMixer(**config, **act).eval())


# A ReLU and a GELU; whole patches and pixels that are left over; a map that is smaller than the kernel; an even kernel.
@pytest.mark.parametrize(
    "name, size, options",
    [
        ("convmixer_768_32", (56, 84), {"kernel_size": 7}),
        ("convmixer_1536_20", (75, 50), {"kernel_size": 9}),
        ("convmixer_1024_20_ks9_p14", (47, 42), {"kernel_size": 9, "patch_size": 14}),
        ("convmixer_1536_20", (42, 35), {"kernel_size": 4}),
    ],
)
def test_logits_are_timms(name, size, options):
    model, reference = created(name, size, **SMALL, **options)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(size))
    assert relative_error(first, second) > 1e-2


def test_a_published_network_is_timms():
    name = "convmixer_1024_20_ks9_p14"
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(224, batch=1))


def test_heads_and_blocks_are_timms():
    model, reference = created("convmixer_1536_20", 56, kernel_size=5, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(24, 7)] * 3


def test_gradients_are_timms():
    assert_gradient_parity(*created("convmixer_1536_20", 56, kernel_size=5, **SMALL))


@pytest.mark.parametrize("scan", [False, True])
def test_training_is_timms(scan):
    model, reference = created("convmixer_1536_20", 56, kernel_size=5, **SMALL)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(56, batch=4)
    model = model.replace(scan=scan)
    found = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    with torch.no_grad():
        expected = reference.train()(oracle.to_torch(images))
    assert relative_error(found.value, expected) < 1e-5
    statistics = oracle.state(reference)
    for path, value in core.flatten(found.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path
