"""The scope: plain mappings, random keys, the compute dtype."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.core.residual import residual


def test_plain_mapping_runs_inference(variables, x):
    expected = core.apply(residual, variables, x).value
    np.testing.assert_array_equal(residual(variables, x), expected)
    params = variables["params"]["head"]
    np.testing.assert_array_equal(core.linear(params, x, 2), core.linear({"params": params}, x, 2))


def test_random_keys_follow_paths(x):
    @core.kernel
    def draw(scope, x):
        return scope["a"].rng("mask"), scope["b"].rng("mask"), scope["a"].rng("other")

    first, second, third = core.apply(draw, {}, x, rng=jax.random.key(0)).value
    assert len({tuple(jax.random.key_data(k).tolist()) for k in (first, second, third)}) == 3

    @core.kernel
    def draw_twice(scope, x):
        return scope["a"].rng("mask"), scope["a"].rng("mask")

    with pytest.raises(ValueError, match="a/mask: this random key was drawn before"):
        core.apply(draw_twice, {}, x, rng=jax.random.key(0))
    with pytest.raises(ValueError, match=re.escape("pass rng=jax.random.key(...)")):
        core.apply(draw, {}, x)


def test_compute_dtype(variables, x):
    half = core.apply(residual, variables, x, dtype=jnp.bfloat16)
    assert half.value.dtype == jnp.bfloat16
    assert core.apply(residual, variables, x.astype(jnp.bfloat16)).value.dtype == jnp.bfloat16
    assert half.batch_stats["last"]["norm"]["mean"].dtype == jnp.float32
    stored = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    assert core.apply(residual, stored, x).value.dtype == jnp.float32
    np.testing.assert_allclose(half.value, core.apply(residual, variables, x).value, atol=0.1)
