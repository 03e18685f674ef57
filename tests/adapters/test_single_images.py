"""Training on single images under `jax.vmap`, as each framework spells it, is training on the batch."""

import jax
import numpy as np
import pytest
from flax import nnx

from flaim.adapters import haiku as flaim_haiku
from flaim.adapters import linen as flaim_linen
from flaim.adapters import nnx as flaim_nnx
from tests.numerics import relative_error
from tests.small import images, randomised, small


def _linen(model, variables, x):
    module, variables = flaim_linen.wrap(model, variables)

    def one(image):
        options = dict(training=True, axis_name="batch", mutable=["batch_stats"])
        logits, updates = module.apply(variables, image[None], **options)
        return logits[0], updates["batch_stats"]

    return jax.vmap(one, out_axes=(0, None), axis_name="batch")(x)


def _haiku(model, variables, x):
    transformed, params, state = flaim_haiku.wrap(model, variables)

    def one(image):
        logits, new = transformed.apply(params, state, None, image[None], is_training=True, axis_name="batch")
        return logits[0], new

    logits, new = jax.vmap(one, out_axes=(0, None), axis_name="batch")(x)
    return logits, flaim_haiku.to_variables(params, new)["batch_stats"]


def _nnx(model, variables, x):
    module = flaim_nnx.wrap(model, variables)
    module.train()
    axes = nnx.StateAxes({...: None})
    call = nnx.vmap(
        lambda module, image: module(image[None], axis_name="batch")[0], in_axes=(axes, 0), axis_name="batch"
    )
    return call(module, x), flaim_nnx.to_variables(module)["batch_stats"]


@pytest.mark.parametrize("spelled", [_linen, _haiku, _nnx])
def test_values_and_statistics_are_the_batchs(spelled):
    model = small("resnet")
    variables, x = randomised(model), images(model, batch=3)
    expected = model.apply(variables, x, training=True)
    logits, stats = spelled(model, variables, x)
    assert relative_error(logits, expected.value) < 1e-4
    assert jax.tree.structure(stats) == jax.tree.structure(expected.batch_stats)
    for found, value in zip(jax.tree.leaves(stats), jax.tree.leaves(expected.batch_stats)):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
