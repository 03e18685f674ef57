"""NesT against timm."""

import pytest
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity

SMALL = {"depths": (1, 2, 1), "num_heads": (1, 2, 4)}


def timms(name: str, size: int, dims: tuple[int, ...], **options) -> torch.nn.Module:
    """timm's model with other options; `create_model` takes none."""
    padding = "same" if name.endswith("_jx") else ""
    nest = oracle.timm.models.nest.Nest
    return oracle.randomise(nest(size, embed_dims=dims, num_levels=len(dims), pad_type=padding, **options).eval())


# Parts of 3x3 and 2x2 tokens; both paddings.
@pytest.mark.parametrize("name, size", [("nest_tiny", 48), ("nest_tiny_jx", 32)])
def test_logits_are_timms(name, size):
    dims = (8, 24, 32)
    model = models.create(name, input_size=size, dims=dims, **SMALL)
    variables = assert_parity(model, timms(name, size, dims, **SMALL))
    first, second = (model.apply(variables, oracle.image(size, seed=seed)).value for seed in (0, 1))
    assert relative_error(first, second) > 1e-2


def test_logits_are_timms_at_full_size():
    name = "nest_tiny_jx"
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(224, batch=1))


def test_gradients_are_timms():
    name, options = "nest_tiny_jx", {"depths": (1, 1), "num_heads": (1, 2)}
    reference = timms(name, 24, (8, 16), num_classes=5, **options)
    assert_gradient_parity(models.create(name, input_size=24, dims=(8, 16), n_classes=5, **options), reference)


def test_heads_and_stages_are_timms():
    name, size, dims = "nest_tiny", 48, (8, 24, 32)
    reference = timms(name, size, dims, **SMALL)
    model = models.create(name, input_size=size, dims=dims, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(8, 4), (8, 4), (24, 8), (32, 16)]


@pytest.mark.parametrize("size", [(48, 32), 40])
def test_images_that_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match="choose a square input size whose side is a multiple of 16"):
        models.create("nest_tiny", input_size=size).spec()
