"""Functions whose derivative recomputes: equal values and derivatives under every transformation; fewer residuals."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaim_core import ops, remat
from flaim_core.ops._dense import dense
from flaim_core.remat import save_nothing
from tests.numerics import relative_error

KEY = jax.random.key(0)


def block(params, x, key):
    """A tree of arrays of several types, with a random mask."""
    hidden = jnp.tanh(dense(x, params["first"])) + jax.random.normal(key, (x.shape[0], 8))
    return {"y": dense(jnp.sin(hidden) * hidden, params["second"]), "best": jnp.argmax(hidden, -1)}, jnp.mean(hidden)


@pytest.fixture
def params():
    first, second = jax.random.split(KEY)
    return {"first": jax.random.normal(first, (6, 8)), "second": jax.random.normal(second, (8, 3))}


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (4, 6))


def total(block, params, x):
    outputs, mean = block(params, x, KEY)
    return jnp.sum(outputs["y"] ** 2) + mean


def assert_same(found, expected):
    """Equal to float32's rounding of each array's largest number, of which smaller ones are differences."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) < 2e-6


DERIVATIVES = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(f, (0, 1)),
    "jitted grad": lambda f: jax.jit(jax.grad(f, (0, 1))),
    "of params alone": lambda f: jax.jit(jax.grad(f)),
    "forward": lambda f: jax.jacfwd(f, 1),
    "hessian": lambda f: jax.hessian(f, 1),
    "reverse twice": lambda f: jax.jacrev(jax.jacrev(f, 1), 1),
    "mapped grad": lambda f: jax.vmap(jax.grad(f, (0, 1)), (None, 0)),
    "grad of mapped": lambda f: jax.jit(jax.grad(lambda p, x: jnp.sum(jax.vmap(f, (None, 0))(p, x)), (0, 1))),
    "under checkpoint": lambda f: jax.jit(jax.grad(jax.checkpoint(f), (0, 1))),
}


@pytest.mark.parametrize("options", [{}, {"policy": save_nothing}], ids=["products", "nothing"])
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_derivatives_are_the_same(params, x, derivative, options):
    x = jnp.stack([x, 2 * x]) if "mapped" in derivative else x
    blocks = block, remat(block, **options)
    expected, found = (DERIVATIVES[derivative](lambda p, x, b=b: total(b, p, x))(params, x) for b in blocks)
    assert_same(found, expected)


def test_outputs_are_the_same(params, x):
    chex.assert_trees_all_equal(remat(block)(params, x, KEY), block(params, x, KEY))
    chex.assert_trees_all_equal(jax.jit(remat(block))(params, x, KEY), jax.jit(block)(params, x, KEY))


def test_what_it_closes_over_is_differentiated(params, x):
    def loss(weight, transform):
        return jnp.sum(transform(lambda x: jnp.sin(x @ weight))(x))

    found = jax.grad(loss)(params["first"], remat)
    np.testing.assert_allclose(found, jax.grad(loss)(params["first"], lambda f: f), rtol=1e-6)


@pytest.mark.parametrize("compiled", [jax.jit, lambda f: f], ids=["compiled", "not compiled"])
def test_gradients_are_transposed_to_derivatives(params, x, compiled):
    def values(x):
        return remat(block)(params, x, KEY)[0]["y"]

    y, gradient = jax.vjp(values, x)
    found = compiled(jax.linear_transpose(gradient, y))((jnp.ones_like(x),))[0]
    np.testing.assert_allclose(found, jax.jvp(values, (x,), (jnp.ones_like(x),))[1], rtol=1e-5)


def test_mapped_axes_have_their_names(x):
    def loss(x, transform):
        centred = transform(lambda x: jnp.sin(x - jax.lax.pmean(x, "batch")) ** 2)
        return jnp.sum(jax.vmap(centred, axis_name="batch")(x))

    np.testing.assert_allclose(jax.grad(loss)(x, remat), jax.grad(loss)(x, lambda f: f), rtol=1e-5, atol=1e-6)


def test_works_in_a_loop(params, x):
    def loss(params, transform):
        body = transform(lambda x, kernel: (jnp.tanh(x @ kernel), None))
        return jnp.sum(jax.lax.scan(body, x, jnp.stack([0.1 * params["first"] @ params["first"].T] * 3))[0] ** 2)

    assert_same(jax.jit(jax.grad(loss), static_argnums=1)(params, remat), jax.grad(loss)(params, lambda f: f))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.usefixtures("lenient")  # the block adds float32 noise
def test_half_precision(params, x, dtype):
    params, x = jax.tree.map(lambda a: a.astype(dtype), (params, x))
    expected, found = (jax.jit(jax.grad(lambda p, b=b: total(b, p, x)))(params) for b in (block, remat(block)))
    chex.assert_trees_all_equal_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=0.05, atol=0.05)


def chain(params, x, transform):
    """Eight wide layers, one after the other."""

    def layer(x, kernel):
        hidden = dense(x, kernel)
        return x + jnp.tanh(jnp.sin(jnp.exp(hidden * 0.1) * hidden))

    for kernel in params:
        x = transform(layer)(x, kernel)
    return jnp.mean(x**2)


def test_keeps_less():
    """Eight layers of 1 MB: the input and the product of each; the inputs alone; with autodiff alone, several more.

    Products of few channels are computed again.
    """

    def temporary(transform, width=128):
        kernel, x = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((width, width), (2**18 // width, width)))
        gradient = jax.jit(jax.grad(lambda p, x: chain(p, x, transform))).lower([kernel] * 8, x)
        return gradient.compile().memory_analysis().temp_size_in_bytes / 2**20

    products, inputs = temporary(remat), temporary(lambda f: remat(f, policy=save_nothing))
    assert inputs < 8 + 6
    assert inputs + 6 < products < 16 + 6
    assert temporary(lambda f: f) > 1.3 * products
    assert temporary(remat, width=64) < 8 + 6


def test_keeps_batch_statistics():
    """The derivative sums once, for the mean's cotangent; a layer norm's mean, along the last axis, is taken anew."""

    def sums(axis):
        centred = remat(lambda x: jnp.sin(x * jnp.mean(jnp.exp(x), axis, keepdims=True)))
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(centred(x) ** 2)))
        return gradient.lower(jnp.zeros((512, 64))).as_text().count("stablehlo.reduce(")

    assert sums(axis=1) == sums(axis=0) + 1


def test_keeps_nothing_of_attention():
    """Memory does not grow with the products of one attention more."""

    def temporary(depth, transform):
        attend = transform(lambda x: ops.dot_product_attention(x, x, x))

        def loss(x):
            for _ in range(depth):
                x = attend(x)
            return jnp.sum(x**2)

        gradient = jax.jit(jax.grad(loss)).lower(jnp.zeros((4, 512, 1, 8)))
        return gradient.compile().memory_analysis().temp_size_in_bytes

    products = 4 * 4 * 512 * 512
    assert temporary(5, lambda f: f) - temporary(2, lambda f: f) > 2.5 * products
    assert temporary(5, remat) - temporary(2, remat) < 0.5 * products


def test_blocks_do_not_compute_a_residual_chain_anew():
    """Without a derivative two arrays of 1 MB serve a chain of any length; XLA alone keeps every product of it."""

    def temporary(transform, depth):
        layer = transform(lambda x, kernel: jax.nn.relu(x + dense(x, kernel)))
        kernels, x = [jnp.zeros((128, 128))] * depth, jnp.zeros((2**11, 128))
        run = jax.jit(lambda x, kernels: functools.reduce(layer, kernels, x)).lower(x, kernels)
        return run.compile().memory_analysis().temp_size_in_bytes / 2**20

    assert temporary(lambda f: f, depth=8) > 7
    assert temporary(remat, depth=8) < 2.5


def test_computes_no_gradient_that_nobody_asks_for():
    """Each kernel's gradient is a product; those of seven of eight kernels are left out."""

    def products(frozen):
        def loss(trained, x):
            return chain([*frozen, trained], x, remat)

        kernel = jnp.zeros((64, 64))
        return jax.jit(jax.grad(loss)).lower(kernel, jnp.zeros((16, 64))).as_text().count("dot_general")

    frozen = [jnp.zeros((64, 64))] * 7
    assert products(frozen) - products(frozen[:3]) == 4


def test_lowers_for_gpus(params, x):
    gradient = jax.jit(jax.grad(lambda p, x: total(remat(block), p, x)))
    exported = jax.export.export(gradient, platforms=("cuda",))(params, x)
    assert exported.platforms == ("cuda",)
