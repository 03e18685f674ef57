"""Lowerings against torch's convolution, pooling and attention: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flaim_core import ops
from tests import oracle
from tests.numerics import relative_error

rng = np.random.default_rng(0)


def _array(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


# (images, height, width, in, out, padding) of 3x3 kernels. All but the first take Winograd's way, two of them in parts;
# the last not for its kernel's gradient.
PRODUCTS = {
    "few pixels": (4, 7, 6, 320, 384, ((1, 1), (1, 0))),
    "even": (4, 14, 14, 256, 128, ((1, 1), (1, 1))),
    "odd": (8, 17, 15, 160, 128, ((1, 1), (1, 1))),
    "unpadded": (8, 23, 24, 64, 96, ((0, 0), (0, 0))),
    "lopsided": (8, 19, 20, 64, 112, ((0, 2), (3, 1))),
    "in parts": (8, 56, 55, 64, 96, ((1, 1), (1, 1))),
    "small kernel": (8, 56, 55, 64, 64, ((1, 1), (1, 1))),
}


@pytest.mark.parametrize("case", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_convolution_by_matrix_products_and_its_gradients_are_those_of_float64(case):
    *shape, features, ((top, bottom), (left, right)) = case
    x, kernel = _array(*shape), _array(3, 3, shape[-1], features)

    def convolve(x, kernel):
        return ops.conv(x, kernel, padding=((top, bottom), (left, right)))

    assert "stablehlo.convolution" not in jax.jit(convolve).lower(x, kernel).as_text()
    value, pullback = jax.vjp(convolve, x, kernel)
    cotangent = _array(*value.shape)

    wide = [torch.tensor(np.asarray(a), dtype=torch.float64, requires_grad=True) for a in (x, kernel)]
    padded = F.pad(wide[0].permute(0, 3, 1, 2), (left, right, top, bottom))
    expected = F.conv2d(padded, wide[1].permute(3, 2, 0, 1)).permute(0, 2, 3, 1)
    expected.backward(torch.tensor(np.asarray(cotangent)))
    for a, b in zip((value, *pullback(cotangent)), (expected.detach(), wide[0].grad, wide[1].grad)):
        assert relative_error(a, b.numpy()) < 2e-6


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
    x = _array(2, *size, 3)
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


def test_the_first_of_equal_maxima_has_the_gradient():
    x = jnp.asarray(rng.integers(0, 3, (2, 9, 8, 3)), jnp.float32)
    images = oracle.to_torch(np.asarray(x)).requires_grad_()
    F.max_pool2d(images, 3, 2, 1).cos().sum().backward()
    gradient = jax.grad(lambda x: jnp.cos(ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))).sum())(x)
    np.testing.assert_array_equal(gradient != 0, images.grad.permute(0, 2, 3, 1) != 0)
    assert relative_error(gradient, images.grad.permute(0, 2, 3, 1)) < 1e-6


@pytest.mark.parametrize("filter_size, border", [(3, "reflect"), (5, "constant")])
def test_blur_pool_is_timms(filter_size, border):
    x = _array(2, 9, 8, 4)
    blur = oracle.timm.layers.BlurPool2d(channels=4, filt_size=filter_size, pad_mode=border)
    expected = blur(oracle.to_torch(np.asarray(x))).permute(0, 2, 3, 1)
    assert relative_error(ops.blur_pool(x, filter_size=filter_size, border=border), expected) < 1e-6


def test_attention_is_torchs():
    query, key, value = _array(2, 5, 3, 8), _array(2, 7, 3, 8), _array(2, 7, 3, 8)
    bias = _array(3, 5, 7)
    heads_first = [torch.from_numpy(np.array(t.transpose(0, 2, 1, 3))) for t in (query, key, value)]
    expected = F.scaled_dot_product_attention(*heads_first, attn_mask=torch.from_numpy(np.array(bias))[None])
    assert relative_error(ops.dot_product_attention(query, key, value, bias), expected.transpose(1, 2)) < 1e-6
    half = ops.dot_product_attention(*(t.astype(jnp.bfloat16) for t in (query, key, value)), bias)
    assert half.dtype == jnp.bfloat16
