"""How near two arrays are, and JAX as lenient as third-party code on it expects; needs none of the oracles."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np


def relative_error(found, expected) -> float:
    """Largest absolute difference over the largest absolute value expected; where all of those are 0, undivided."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1))


@contextmanager
def lenient() -> Iterator[None]:
    """JAX with its default promotion of ranks and dtypes, for code that is not ours."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
