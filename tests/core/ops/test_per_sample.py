"""Convolution of each image with its own kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core
from flaim_core import ops
from tests.numerics import normal


@pytest.mark.parametrize(
    ("kernel", "groups", "stride"),
    [((1, 1, 8, 6), 1, (1, 1)), ((3, 3, 8, 6), 1, (2, 2)), ((3, 3, 4, 6), 2, (1, 1)), ((5, 3, 1, 16), 8, (2, 1))],
)
@pytest.mark.parametrize("mode", ["auto", "portable"])
def test_each_image_is_convolved_with_its_own_kernel(kernel, groups, stride, mode):
    x, kernels = normal(3, 9, 8, 8), normal(3, *kernel)
    options = dict(stride=stride, padding=((1, 2), (0, 1)), groups=groups)
    expected = jnp.concatenate([ops.conv(x[i : i + 1], kernels[i], **options) for i in range(3)])
    with flaim_core.lowering(mode):
        found = jax.jit(lambda x, kernels: ops.conv_per_sample(x, kernels, **options))(x, kernels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
