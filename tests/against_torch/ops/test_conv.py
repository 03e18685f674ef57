"""3x3 convolutions as matrix products against torch's in float64: values and gradients."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flaim_core import ops
from tests.numerics import normal, relative_error

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
    x, kernel = normal(*shape), normal(3, 3, shape[-1], features)

    def convolve(x, kernel):
        return ops.conv(x, kernel, padding=((top, bottom), (left, right)))

    assert "stablehlo.convolution" not in jax.jit(convolve).lower(x, kernel).as_text()
    value, pullback = jax.vjp(convolve, x, kernel)
    cotangent = normal(*value.shape)

    wide = [torch.tensor(np.asarray(a), dtype=torch.float64, requires_grad=True) for a in (x, kernel)]
    padded = F.pad(wide[0].permute(0, 3, 1, 2), (left, right, top, bottom))
    expected = F.conv2d(padded, wide[1].permute(3, 2, 0, 1)).permute(0, 2, 3, 1)
    expected.backward(torch.tensor(np.asarray(cotangent)))
    for a, b in zip((value, *pullback(cotangent)), (expected.detach(), wide[0].grad, wide[1].grad)):
        assert relative_error(a, b.numpy()) < 2e-6
