"""Pooling: the lowering of each platform."""

import jax
import pytest

from flaim_core import ops
from tests.numerics import normal


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_each_platform_gets_its_own_lowering(platform):
    x = normal(1, 8, 8, 16)
    pool = jax.jit(lambda x: ops.max_pool(x, (3, 3), (2, 2)))
    text = jax.export.export(pool, platforms=[platform])(x).mlir_module()
    assert ("reduce_window" in text) == (platform != "cpu")
