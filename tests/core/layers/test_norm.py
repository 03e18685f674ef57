"""Norms: their derivatives are written by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

import flaim_core as core
from tests.core.layers.cases import MAP
from tests.numerics import relative_error


@pytest.mark.parametrize("norm, axes", [("batch_norm", (0, 1, 2)), ("layer_norm", (3,)), ("group_norm", (1, 2, 4))])
def test_norms_twice_differentiated(norm, axes):
    """The variance's derivative leaves out what is zero; derivatives of it must not."""
    options = {"groups": 4} if norm == "group_norm" else {}
    kernel = functools.partial(getattr(core, norm), **options)
    variables = core.init(kernel, jax.random.key(0), MAP)

    def plain(x):
        grouped = x.reshape(*x.shape[:3], 4, -1) if norm == "group_norm" else x
        mean, var = (f(grouped, axes, keepdims=True) for f in (jnp.mean, jnp.var))
        return ((grouped - mean) / jnp.sqrt(var + (1e-6 if norm == "layer_norm" else 1e-5))).reshape(x.shape)

    def outputs(function):
        gradient = jax.grad(lambda x: (jnp.sin(function(x)) * MAP**2).sum())
        return gradient(MAP), jax.grad(lambda x: (gradient(x) ** 2).sum())(MAP)

    found = outputs(lambda x: core.apply(kernel, variables, x, training=True).value)
    for a, b in zip(found, outputs(plain)):
        assert relative_error(a, b) < 2e-5
