"""GELU: its derivative is written by hand."""

import functools

import jax
import jax.numpy as jnp

import flaim_core as core
from tests.numerics import relative_error


def test_gelu_and_its_derivatives_are_jaxs():
    def outputs(gelu):
        slope = jax.vmap(jax.grad(gelu))
        return gelu(points), slope(points), jax.vmap(jax.grad(lambda x: jnp.sin(jax.grad(gelu)(x))))(points)

    points = jnp.linspace(-9, 9, 400)
    for a, b in zip(outputs(core.gelu), outputs(functools.partial(jax.nn.gelu, approximate=False))):
        assert relative_error(a, b) < 1e-6
    _, pullback = jax.vjp(core.gelu, points)
    assert sum(kept.size for kept in jax.tree.leaves(pullback)) == points.size  # the input alone
