"""Lowerings against XLA's own convolution and torch's pooling: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jax import lax

from flaim_core import ops
from tests import oracle
from tests.oracle import relative_error

rng = np.random.default_rng(0)


def _array(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def _generic(x, kernel, stride, padding, dilation, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# (height, width, in, out, groups, kernel size, stride, padding, dilation)
CONVOLUTIONS = {
    "pointwise": (7, 6, 5, 4, 1, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "pointwise strided": (7, 6, 5, 4, 1, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "pointwise padded": (7, 6, 5, 4, 1, (1, 1), (1, 1), ((1, 0), (0, 1)), (1, 1)),
    "patches": (8, 6, 3, 5, 1, (4, 3), (4, 3), ((0, 0), (0, 0)), (1, 1)),
    "patches, remainder": (9, 11, 3, 5, 1, (4, 4), (4, 4), ((0, 0), (0, 0)), (1, 1)),
    "dense": (9, 8, 3, 5, 1, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "dense 7x7": (14, 15, 3, 5, 1, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)),
    "depthwise": (9, 8, 6, 6, 6, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "depthwise 7x7": (9, 8, 6, 6, 6, (7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1)),
    "depthwise strided": (9, 8, 6, 6, 6, (5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1)),
    "depthwise lopsided": (8, 9, 6, 6, 6, (3, 5), (2, 3), ((0, 1), (1, 2)), (1, 1)),
    "depthwise dilated": (9, 8, 6, 6, 6, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "depthwise multiplied": (9, 8, 6, 18, 6, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "grouped narrow": (7, 6, 64, 128, 32, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "grouped strided": (7, 6, 48, 48, 3, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "grouped odd": (7, 6, 35, 14, 7, (3, 3), (1, 1), ((1, 1), (1, 1)), (2, 1)),
    "grouped wide": (7, 6, 128, 64, 2, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolution_and_its_gradients_are_xlas(case):
    height, width, channels, features, groups, kernel_size, stride, padding, dilation = case
    x, kernel = _array(2, height, width, channels), _array(*kernel_size, channels // groups, features)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def outputs(convolve):
        value, pullback = jax.vjp(lambda x, kernel: convolve(x, kernel), x, kernel)
        _, tangent = jax.jvp(lambda x, kernel: convolve(x, kernel), (x, kernel), (x + 1, kernel - 1))
        return value, *pullback(jnp.cos(value)), tangent

    found = outputs(lambda x, kernel: ops.conv(x, kernel, **options))
    expected = outputs(lambda x, kernel: _generic(x, kernel, stride, padding, dilation, groups))
    for a, b in zip(found, expected):
        assert relative_error(a, b) < 4e-6


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 0)], ids=str)
def test_depthwise_under_vmap_and_twice_differentiated(axes):
    x, kernel = _array(3, 3, 7, 6, 4), _array(3, 3, 3, 1, 4)
    x, kernel = (a if axis is not None else a[0] for a, axis in zip((x, kernel), axes))
    window = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 1), "groups": 4}

    def outputs(convolve):
        mapped = jax.vmap(lambda x, kernel: jnp.sin(convolve(x, kernel)), axes)
        gradient = jax.grad(lambda x, kernel: (mapped(x, kernel) ** 2).sum(), (0, 1))
        twice = jax.grad(lambda x, kernel: sum((g**2).sum() for g in gradient(x, kernel)), (0, 1))
        return mapped(x, kernel), *gradient(x, kernel), *twice(x, kernel)

    found = outputs(lambda x, kernel: ops.conv(x, kernel, **window))
    expected = outputs(lambda x, kernel: _generic(x, kernel, *window.values()))
    for a, b in zip(found, expected):
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_each_platform_gets_its_own_lowering(platform):
    x, kernel = _array(1, 8, 8, 16), _array(3, 3, 1, 16)
    convolve = jax.jit(lambda x, kernel: ops.conv(x, kernel, groups=16))
    text = jax.export.export(convolve, platforms=[platform])(x, kernel).mlir_module()
    assert ("stablehlo.convolution" in text) == (platform != "cpu")
    pool = jax.jit(lambda x: ops.max_pool(x, (3, 3), (2, 2)))
    text = jax.export.export(pool, platforms=[platform])(x).mlir_module()
    assert ("reduce_window" in text) == (platform != "cpu")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("case", ["pointwise", "patches", "depthwise", "grouped narrow", "dense"])
def test_convolution_keeps_the_dtype(case, dtype):
    height, width, channels, features, groups, kernel_size, stride, padding, dilation = CONVOLUTIONS[case]
    x, kernel = _array(2, height, width, channels), _array(*kernel_size, channels // groups, features)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    half = ops.conv(x.astype(dtype), kernel.astype(dtype), **options)
    assert half.dtype == dtype
    assert relative_error(half, ops.conv(x, kernel, **options)) < (0.02 if dtype == jnp.bfloat16 else 0.004)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (112, 11)])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_same_padding_is_xlas(size, kernel_size, stride):
    dilated = tuple(lax.padtype_to_pads(size, kernel_size, stride, "SAME"))
    assert ops.same_padding(size, kernel_size, stride) == dilated


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


def test_partitions_reverse_and_differ():
    x = _array(2, 8, 12, 3)
    windows, grids = ops.window_partition(x, (4, 6)), ops.grid_partition(x, (4, 6))
    assert windows.shape == grids.shape == (2, 4, 24, 3)
    np.testing.assert_array_equal(ops.window_reverse(windows, (4, 6), (8, 12)), x)
    np.testing.assert_array_equal(ops.grid_reverse(grids, (4, 6), (8, 12)), x)
    np.testing.assert_array_equal(windows[:, 0], x[:, :4, :6].reshape(2, 24, 3))
    np.testing.assert_array_equal(grids[:, 0], x[:, ::2, ::2].reshape(2, 24, 3))
    with pytest.raises(ValueError, match="8x12 does not divide into windows of 3x6"):
        ops.window_partition(x, (3, 6))
