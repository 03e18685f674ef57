"""Convolution against XLA's: values, gradients, `jax.vmap`, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jax import lax

from flaim_core import ops
from tests.numerics import normal, relative_error


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
    "many pixels": (22, 21, 3, 5, 1, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "many pixels strided": (42, 45, 3, 5, 1, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "many pixels lopsided": (44, 65, 3, 5, 1, (4, 3), (2, 3), ((0, 2), (2, 0)), (1, 1)),
    "many pixels dilated": (47, 40, 3, 5, 1, (3, 2), (2, 1), ((1, 3), (1, 0)), (2, 3)),
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
    "many groups": (5, 6, 18 * 32, 18 * 64, 18, (3, 3), (2, 1), ((1, 1), (0, 1)), (1, 1)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolution_and_its_gradients_are_xlas(case):
    height, width, channels, features, groups, kernel_size, stride, padding, dilation = case
    x, kernel = normal(2, height, width, channels), normal(*kernel_size, channels // groups, features)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def outputs(convolve):
        value, pullback = jax.vjp(lambda x, kernel: convolve(x, kernel), x, kernel)
        _, tangent = jax.jvp(lambda x, kernel: convolve(x, kernel), (x, kernel), (x + 1, kernel - 1))
        return value, *pullback(jnp.cos(value)), tangent

    found = outputs(lambda x, kernel: ops.conv(x, kernel, **options))
    expected = outputs(lambda x, kernel: _generic(x, kernel, stride, padding, dilation, groups))
    for a, b in zip(found, expected):
        assert relative_error(a, b) < 4e-6


def _windows(draw, size: int):
    """Size of a kernel, its stride, padding and dilation along an axis of this many pixels."""
    kernel, stride, dilation = (draw(st.integers(1, high)) for high in (5, 3, 3))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    assume(sum(padding) + size > (kernel - 1) * dilation)
    return kernel, stride, padding, dilation


@st.composite
def convolutions(draw):
    """Shapes, windows, groups and types as in `CONVOLUTIONS`."""
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    size = tuple(n * draw(st.sampled_from([1, 6])) for n in size)
    windows = zip(*(_windows(draw, n) for n in size))
    groups, per_group, out_per_group = (draw(st.integers(1, 4)) for _ in range(3))
    kernel_size, stride, padding, dilation = map(tuple, windows)
    shape = (*size, groups * per_group, groups * out_per_group, groups)
    return *shape, kernel_size, stride, padding, dilation, draw(st.sampled_from(["float32", "bfloat16", "float16"]))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(convolutions())
def test_any_convolution_and_its_gradients_are_xlas(case):
    height, width, channels, features, groups, kernel_size, stride, padding, dilation, dtype = case
    x, kernel = normal(2, height, width, channels), normal(*kernel_size, channels // groups, features)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def outputs(convolve, *args):
        value, pullback = jax.vjp(convolve, *args)
        return value, *pullback(jnp.asarray(np.arange(value.size) % 7 - 3.0, value.dtype).reshape(value.shape))

    found = jax.jit(lambda *args: outputs(lambda x, kernel: ops.conv(x, kernel, **window), *args))(x, kernel)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    expected = jax.jit(lambda *args: outputs(lambda x, kernel: _generic(x, kernel, *window.values()), *args))(*wide)
    for a, b in zip(found, expected):
        assert a.dtype == dtype and a.shape == b.shape
        assert relative_error(a, b) < {"float32": 4e-6, "bfloat16": 0.02, "float16": 0.003}[dtype]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 0)], ids=str)
def test_convolution_under_vmap_and_twice_differentiated(axes, groups):
    x, kernel = normal(3, 3, 7, 6, 4), normal(3, 3, 3, 4 // groups, 4)
    x, kernel = (a if axis is not None else a[0] for a, axis in zip((x, kernel), axes))
    window = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 1), "groups": groups}

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
    x, kernel = normal(1, 8, 8, 16), normal(3, 3, 1, 16)
    convolve = jax.jit(lambda x, kernel: ops.conv(x, kernel, groups=16))
    text = jax.export.export(convolve, platforms=[platform])(x, kernel).mlir_module()
    assert ("stablehlo.convolution" in text) == (platform != "cpu")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("case", ["pointwise", "patches", "depthwise", "grouped narrow", "dense"])
def test_convolution_keeps_the_dtype(case, dtype):
    height, width, channels, features, groups, kernel_size, stride, padding, dilation = CONVOLUTIONS[case]
    x, kernel = normal(2, height, width, channels), normal(*kernel_size, channels // groups, features)
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
