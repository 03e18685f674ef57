"""Reverse-mode Jacobians under jit: XLA for CPUs in jaxlib 0.10.2 compiles what norms are made of wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.oracle import relative_error
from tests.small import images, randomised, small

rng = np.random.default_rng(0)
# Tokens whose Jacobian's terms are large enough for the fault, and the norms over their last axis.
TOKENS = jnp.asarray(rng.standard_normal((2, 16, 32)), jnp.float32)
KERNELS = {
    "layer_norm": (core.layer_norm, {}),
    "rms_norm": (core.rms_norm, {}),
    "group_norm": (core.group_norm, {"groups": 4}),
    "attention": (core.attention, {"num_heads": 4}),
    "cross_covariance_attention": (core.cross_covariance_attention, {"num_heads": 4}),
    "talking_heads_attention": (core.talking_heads_attention, {"num_heads": 4}),
    "attention_pool": (core.attention_pool, {"num_heads": 4, "hidden": 32}),
}


@pytest.mark.parametrize("kernel, options", KERNELS.values(), ids=KERNELS.keys())
def test_jacobian_of_a_kernel_under_jit(kernel, options):
    variables = core.init(kernel, jax.random.key(0), TOKENS, **options)
    jacobian = jax.jacrev(lambda x: core.apply(kernel, variables, x, **options).value)
    assert relative_error(jax.jit(jacobian)(TOKENS), jacobian(TOKENS)) < 1e-5


# They normalise the last axis, as the fault needs it.
@pytest.mark.parametrize("family", ["convnext", "vit"])
def test_jacobian_of_a_model_under_jit(family):
    """Its product with an image is the derivative in that direction, which no fusion spoils."""
    model = small(family, n_classes=64)
    variables, x = randomised(model), images(model)
    direction = jnp.asarray(rng.standard_normal(x.shape), jnp.float32)

    def run(variables, x):
        return model.apply(variables, x).value

    _, expected = jax.jit(lambda v, x, t: jax.jvp(lambda x: run(v, x), (x,), (t,)))(variables, x, direction)
    jacobian = jax.jit(jax.jacrev(run, 1))(variables, x)
    assert relative_error(jnp.tensordot(jacobian, direction, x.ndim), expected) < 1e-5
