"""Random arrays, and how near two arrays are; needs none of the oracles."""

import jax
import jax.numpy as jnp
import numpy as np

_rng = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    """Standard normal numbers, float32; different ones at each call."""
    return jnp.asarray(_rng.standard_normal(shape), jnp.float32)


def relative_error(found, expected) -> float:
    """Largest absolute difference over the largest absolute value expected; where all of those are 0, undivided."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1))
