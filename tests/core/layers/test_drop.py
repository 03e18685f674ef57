"""Dropout and stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core


@pytest.mark.parametrize("layer", [core.dropout, core.drop_path])
def test_dropping_keeps_the_mean_and_needs_a_key(layer):
    ones = jnp.ones((4000, 5))
    found = core.apply(layer, {}, ones, rate=0.25, training=True, rng=jax.random.key(0)).value
    assert set(np.unique(np.asarray(found)).round(5)) == {0, np.float32(1 / 0.75).round(5)}
    assert abs(float(found.mean()) - 1) < 0.03
    rows = np.asarray(found)
    assert (rows == rows[:, :1]).all() == (layer is core.drop_path)
    np.testing.assert_array_equal(core.apply(layer, {}, ones, rate=0.25).value, ones)
    with pytest.raises(ValueError, match="mask draws random numbers in training: pass rng="):
        core.apply(layer, {}, ones, rate=0.25, training=True)


def test_the_schedule_of_rates_is_linear():
    assert core.drop_path_schedule(0.4, 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert core.drop_path_schedule(0.4, 1) == [0]
