"""Who runs a program: where flaim's own primitives stand in, and where there are none."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import flaim_core as core
from flaim_core import _jax, ops
from flaim_core.lowering import abstract_evaluation
from tests.programs import own_primitives

X, KERNEL = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))


def _run(x, kernel):
    y = ops.max_pool(ops.conv(x, kernel), (2, 2), (2, 2))
    return ops.dense(y, kernel[0, 0])


def test_a_cpu_by_itself_gets_our_primitives():
    assert own_primitives(_run, X, KERNEL) == {"convolution", "dense", "lower_per_platform"}


def test_the_switch_is_a_context_and_a_default():
    with core.lowering("portable"):
        assert not own_primitives(_run, X, KERNEL)
        with core.lowering("auto"):
            assert own_primitives(_run, X, KERNEL)
    core.set_lowering("portable")
    try:
        assert not own_primitives(_run, X, KERNEL)
    finally:
        core.set_lowering("auto")
    assert own_primitives(_run, X, KERNEL)
    with pytest.raises(ValueError, match="lowering is 'auto' or 'portable', not 'fast'"):
        core.lowering("fast")


def test_compiled_functions_are_traced_again_for_another_lowering():
    traces = []

    @jax.jit
    def run(x, kernel):
        traces.append(None)
        return _run(x, kernel)

    expected = run(X, KERNEL)
    with core.lowering("portable"):
        np.testing.assert_allclose(run(X, KERNEL), expected, rtol=1e-6)
        run(X, KERNEL)
    run(X, KERNEL)
    assert len(traces) == 2


def test_meshes_and_symbolic_sizes_get_public_operations():
    mesh = jax.make_mesh((1,), ("data",))
    sharded = jax.device_put(X, jax.NamedSharding(mesh, jax.P("data")))
    assert not own_primitives(_run, sharded, jax.device_put(KERNEL, jax.NamedSharding(mesh, jax.P())))
    with jax.set_mesh(mesh):
        assert not own_primitives(_run, X, KERNEL)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(_run, mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data"))
    assert not own_primitives(mapped, X, KERNEL)
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 8, 8, 16"), jnp.float32)
    exported = jax.export.export(jax.jit(_run))(symbolic, KERNEL)
    np.testing.assert_allclose(exported.call(X, KERNEL), _run(X, KERNEL), rtol=1e-6)


def test_other_backends_get_public_operations(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not own_primitives(_run, X, KERNEL)


def test_whoever_intercepts_laxs_products_sees_them(monkeypatch):
    seen = []
    product = lax.dot_general

    def intercepted(*args, **kwargs):
        seen.append(args[0].shape)
        return product(*args, **kwargs)

    monkeypatch.setattr(lax, "dot_general", intercepted)
    assert not own_primitives(_run, X, KERNEL)
    assert seen == [(2, 3, 3, 16)]


@pytest.mark.parametrize("mode", ["auto", "portable"])
def test_the_precision_of_the_trace_holds_when_it_is_lowered(mode):
    def run(x, kernel):
        with jax.default_matmul_precision("highest"), core.lowering(mode):
            return _run(x, kernel)

    gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(run(x, kernel) ** 2), (0, 1)))
    for platform in ("cpu", "tpu"):
        lines = gradient.trace(X, KERNEL).lower(lowering_platforms=(platform,)).as_text().splitlines()
        products = [line for line in lines if "dot_general" in line or "stablehlo.convolution" in line]
        assert products and all("HIGHEST" in line for line in products)


def test_eager_calls_of_operations_are_compiled():
    depthwise = jnp.ones((3, 3, 1, 16))
    np.testing.assert_allclose(ops.conv(X, depthwise, groups=16), jnp.full((2, 6, 6, 16), 9.0), rtol=1e-6)
    np.testing.assert_allclose(ops.conv(X, KERNEL), jnp.full((2, 6, 6, 16), 144.0), rtol=1e-6)


def test_a_missing_internal_of_jax_is_a_loud_failure(monkeypatch):
    import jax.extend.core

    monkeypatch.delattr(jax.extend.core, "Primitive")
    with pytest.raises(ImportError, match=r"relies on jax.extend.core.Primitive, which jax [\d.]+ does not have"):
        importlib.import_module("flaim_core._jax")._internal("jax.extend.core", "Primitive")
    assert _jax.KNOWN_VERSIONS


def test_outputs_that_nothing_maps_stay_unmapped():
    """As jax.vmap has it for its own operations: `out_axes=None` where an output depends on no mapped input."""

    def block(scale, x):
        return {"y": jnp.sin(x @ scale), "scale": jnp.cos(scale)}

    def run(x, scale):
        out = {"y": 0, "scale": None}
        return jax.vmap(core.remat(block), (None, 0), out)(scale, x)

    x, scale = jnp.ones((3, 2, 4)), jnp.full((4, 4), 0.1)
    expected = jax.vmap(lambda x: block(scale, x)["y"])(x)
    found = jax.jit(run)(x, scale)
    np.testing.assert_allclose(found["y"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["scale"], jnp.cos(scale), rtol=1e-6)

    def loss(scale, run):
        out = run(x, scale)
        return sum(map(jnp.sum, jax.tree.leaves(out)))

    plain = jax.grad(loss)(
        scale, lambda x, scale: {"y": jax.vmap(lambda x: block(scale, x)["y"])(x), "s": jnp.cos(scale)}
    )
    np.testing.assert_allclose(jax.jit(jax.grad(loss), static_argnums=1)(scale, run), plain, rtol=1e-5)


def test_a_function_that_was_traced_for_its_shapes_computes_afterwards():
    product = jax.jit(ops.dense)

    @core.kernel
    def layer(scope, x):
        return product(x, scope.param("kernel", (3, 2), core.initializers.normal(1.0)))

    x = jnp.asarray(np.arange(12.0).reshape(4, 3), jnp.float32)
    with abstract_evaluation():
        assert "dot_general" not in str(jax.make_jaxpr(lambda x, k: ops.dense(x, k))(x, x[:3, :2]))
    variables = core.init(layer, jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(core.apply(layer, variables, x).value, x @ kernel, rtol=1e-6)
