"""Variables and an input of the model in `tests.core.residual`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.core.residual import X, residual


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)


@pytest.fixture
def variables():
    variables = core.init(residual, jax.random.key(0), X)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.uniform(next(keys), leaf.shape), variables)
