"""Pooling against torch's and timm's: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flaim_core import ops
from tests import oracle
from tests.numerics import normal, relative_error

POOLS = [
    # window, stride, padding, ceil_mode, count_padding
    (3, 2, 1, False, True),
    (2, 2, 0, True, False),
    (3, 2, 0, True, True),
    (3, 2, 1, True, True),
    (3, 2, 1, True, False),
    (3, 1, 1, False, False),
    (5, 3, 2, False, True),
]


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize("window, stride, padding, ceil_mode, count_padding", POOLS)
def test_pools_and_their_gradients_are_torchs(size, window, stride, padding, ceil_mode, count_padding):
    x = normal(2, *size, 3)
    pads = ((padding, padding), (padding, padding))
    images = oracle.to_torch(np.asarray(x)).requires_grad_()

    def check(pool, reference):
        value, pullback = jax.vjp(pool, x)
        assert relative_error(value, reference.detach().permute(0, 2, 3, 1)) < 1e-6
        (gradient,) = torch.autograd.grad(reference.cos().sum(), images)
        assert relative_error(pullback(-jnp.sin(value))[0], gradient.permute(0, 2, 3, 1)) < 1e-6

    shape = ((window, window), (stride, stride), pads, ceil_mode)
    check(lambda x: ops.max_pool(x, *shape), F.max_pool2d(images, window, stride, padding, ceil_mode=ceil_mode))
    check(
        lambda x: ops.avg_pool(x, *shape, count_padding=count_padding),
        F.avg_pool2d(images, window, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_padding),
    )


@pytest.mark.parametrize("bins", [(4, 5), (3, 7), (7, 7), (9, 20)])  # whole, overlapping, and more than pixels
def test_adaptive_average_and_its_gradient_are_torchs(bins):
    x = normal(2, 8, 10, 3)
    images = oracle.to_torch(np.asarray(x)).requires_grad_()
    reference = F.adaptive_avg_pool2d(images, bins)
    (gradient,) = torch.autograd.grad(reference.cos().sum(), images)
    value, pullback = jax.vjp(lambda x: ops.adaptive_avg_pool(x, bins), x)
    assert relative_error(value, reference.detach().permute(0, 2, 3, 1)) < 1e-6
    assert relative_error(pullback(-jnp.sin(value))[0], gradient.permute(0, 2, 3, 1)) < 1e-6


def test_the_first_of_equal_maxima_has_the_gradient():
    x = jnp.round(normal(2, 9, 8, 3))
    images = oracle.to_torch(np.asarray(x)).requires_grad_()
    F.max_pool2d(images, 3, 2, 1).cos().sum().backward()
    gradient = jax.grad(lambda x: jnp.cos(ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))).sum())(x)
    np.testing.assert_array_equal(gradient != 0, images.grad.permute(0, 2, 3, 1) != 0)
    assert relative_error(gradient, images.grad.permute(0, 2, 3, 1)) < 1e-6


@pytest.mark.parametrize("filter_size, border", [(3, "reflect"), (5, "constant")])
def test_blur_pool_is_timms(filter_size, border):
    x = normal(2, 9, 8, 4)
    blur = oracle.timm.layers.BlurPool2d(channels=4, filt_size=filter_size, pad_mode=border)
    expected = blur(oracle.to_torch(np.asarray(x))).permute(0, 2, 3, 1)
    assert relative_error(ops.blur_pool(x, filter_size=filter_size, border=border), expected) < 1e-6
