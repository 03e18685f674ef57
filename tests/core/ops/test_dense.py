"""The matrix product against `jnp.matmul`."""

import jax
import jax.numpy as jnp
import pytest

from flaim_core import ops
from tests.numerics import normal, relative_error


@pytest.mark.parametrize("axes", [(0, None), (2, None), (None, 0), (1, 2)], ids=str)
def test_dense_under_vmap_and_twice_differentiated(axes):
    shapes = ((2, 5, 4), (4, 6))
    x, kernel = (
        normal(*shape) if axis is None else normal(*shape[:axis], 3, *shape[axis:]) for shape, axis in zip(shapes, axes)
    )

    def outputs(product):
        mapped = jax.vmap(lambda x, kernel: jnp.sin(product(x, kernel)), axes)
        gradient = jax.grad(lambda x, kernel: (mapped(x, kernel) ** 2).sum(), (0, 1))
        twice = jax.grad(lambda x, kernel: sum((g**2).sum() for g in gradient(x, kernel)), (0, 1))
        _, tangent = jax.jvp(mapped, (x, kernel), (x + 1, kernel - 1))
        return mapped(x, kernel), tangent, *gradient(x, kernel), *twice(x, kernel)

    for a, b in zip(outputs(ops.dense), outputs(jnp.matmul)):
        assert relative_error(a, b) < 1e-5
