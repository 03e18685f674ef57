"""Global Context ViTs against timm, and the attention with global queries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import assert_gradient_parity, assert_heads_and_intermediates_parity, assert_parity, variables_from

timm_gcvit = oracle.timm.models.gcvit

SMALL = {"depths": (2, 1, 2, 1), "num_heads": (1, 2, 4, 8)}


@pytest.mark.parametrize("size, window", [((6, 8), (3, 2)), ((4, 4), (4, 4))])
def test_attention_with_global_queries_is_timms(size, window):
    block = timm_gcvit.GlobalContextVitBlock(8, size, num_heads=2, window_size=window, use_global=True)
    oracle.randomise(block)
    rng = np.random.default_rng(1)
    x, query = (jnp.asarray(rng.standard_normal((2, *side, 8)), jnp.float32) for side in (size, window))
    run = partial(core.global_query_attention, query=query, num_heads=2)
    variables = variables_from(core.spec(run, x), oracle.state(block.attn))
    with torch.no_grad():
        expected = block._window_attn(*(torch.from_numpy(np.array(array)) for array in (x, query)))
    assert relative_error(jax.jit(run)(variables, x), expected) < 1e-5
    other = core.global_query_attention(variables, x, query[::-1], num_heads=2)
    assert relative_error(other, expected) > 1e-2


# With layer scales; then windows that do not grow with the image.
CASES = {
    "layer_scale": ({"mlp_ratio": 2, "layer_scale": 1e-5}, {"mlp_ratio": 2, "layer_scale_init": 1e-5}),
    "window": ({"window_size": ((4, 8), (2, 4))}, {"window": ((4, 8), (2, 4))}),
}


@pytest.mark.parametrize("theirs, ours", CASES.values(), ids=CASES.keys())
def test_logits_are_timms(theirs, ours):
    size, options = (32, 64), {"depths": (1, 2), "num_heads": (1, 2)}
    reference = timm_gcvit.GlobalContextVit(img_size=size, embed_dim=16, **options, **theirs).eval()
    oracle.randomise(reference)
    assert_parity(models.create("gcvit_xxtiny", input_size=size, dim=16, **options, **ours), reference)


def test_heads_and_stages_are_timms():
    size = (64, 96)  # the windows are no squares
    reference = oracle.randomise(timm_gcvit.GlobalContextVit(img_size=size, embed_dim=16, **SMALL).eval())
    model = models.create("gcvit_xxtiny", input_size=size, dim=16, **SMALL)
    assert_heads_and_intermediates_parity(model, reference)
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (32, 8), (64, 16), (128, 32)]


def test_gradients_are_timms():
    options = {"depths": (2, 2), "num_heads": (1, 2), "window_ratio": (16, 8)}
    reference = timm_gcvit.GlobalContextVit(img_size=(32, 48), embed_dim=8, num_classes=5, **options)
    oracle.randomise(reference.eval())
    model = models.create("gcvit_xxtiny", input_size=(32, 48), dim=8, n_classes=5, **options)
    assert_gradient_parity(model, reference)


def test_the_smallest_variant_at_its_size():
    reference = oracle.create("gcvit_xxtiny")
    assert_parity(models.create("gcvit_xxtiny"), reference)
    first, second = oracle.run(reference, oracle.image(224))
    assert relative_error(first, second) > 1e-2


def test_sizes_that_do_not_divide_say_what_does():
    for size in (36, 100):
        with pytest.raises(ValueError, match="a multiple of 32"):
            models.create("gcvit_xxtiny", input_size=size).spec()
    with pytest.raises(ValueError, match="a feature map of 16x16 cannot be halved to a window of 3x3"):
        models.create("gcvit_xxtiny", input_size=64, window=3).spec()


def test_attention_weights_are_captured():
    model = models.create("gcvit_xxtiny", input_size=64, dim=16, depths=(2,), num_heads=(2,))
    variables = jax.eval_shape(model.init, jax.random.key(0))
    run = partial(model.apply, capture="*/weights")
    found = jax.eval_shape(run, variables, model.image(2)).intermediates
    shapes = {f"stages/0/blocks/{i}/attn/weights": (2, 64, 2, 4, 4) for i in range(2)}
    assert {name: value.shape for name, value in found.items()} == shapes
