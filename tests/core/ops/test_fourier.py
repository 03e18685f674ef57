"""Filters of Fourier transforms, as a CPU runs them and as programs for elsewhere have them."""

import jax
import numpy as np
import pytest

import flaim_core as core
from flaim_core import ops
from tests.numerics import normal, relative_error


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 4), (3, 1)])
def test_products_are_the_transforms(size):
    height, width = size
    x, real, imaginary = normal(2, 3, *size), *(normal(3, height, width // 2 + 1) for _ in range(2))
    spectrum = np.fft.rfft2(np.asarray(x, np.float64)) * (np.asarray(real) + 1j * np.asarray(imaginary))
    expected = np.fft.irfft2(spectrum, size)
    assert relative_error(jax.jit(ops.spectral_filter)(x, real, imaginary), expected) < 1e-6
    with core.lowering("portable"):
        program = jax.jit(lambda *arrays: ops.spectral_filter(*arrays)).lower(x, real, imaginary)
        assert "fft" not in program.as_text()
        assert relative_error(program.compile()(x, real, imaginary), expected) < 1e-6
