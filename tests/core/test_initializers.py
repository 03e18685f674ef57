"""Initialisers."""

import jax
import numpy as np

import flaim_core as core


def test_init_of_a_large_leaf_draws_no_value_twice():
    kernel = core.initializers.normal(1.0)(jax.random.key(0), (1024, 1000))
    assert len(np.unique(kernel)) > 0.9 * kernel.size  # blocks drawn alike would leave a quarter
    assert abs(float(kernel.std()) - 1) < 0.01 and abs(float(kernel.mean())) < 0.01
