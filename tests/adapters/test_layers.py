"""Every kernel as a module of every framework, from its name alone."""

import inspect
import pydoc
from functools import partial

import chex
import equinox
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaim_core as core
from flaim.adapters import _common, eqx, haiku, linen
from flaim.adapters import nnx as nnx_adapter

KERNELS = _common.kernels()
ADAPTERS = {"linen": linen, "nnx": nnx_adapter, "eqx": eqx, "haiku": haiku}

# Sizes of the axes that the kernels' annotations name, and values of the options that have no default.
AXES = {"b": 2, "h": 8, "w": 8, "n": 16, "t": 16, "c": 8, "d": 4, "experts": 3}
OPTIONS = {
    "features": 8,
    "dim": 8,
    "depth": 2,
    "num_heads": 2,
    "hidden": 8,
    "kernel_size": 3,
    "patch_size": 2,
    "lambda_init": 0.5,
    "rate": 0.5,
    "size": (4, 4),
    "stride": 2,
    "norm": core.layer_norm,
    "ratio": 2,
    "token_mixer": partial(core.mlp, hidden=8),
}
# Options that have a default, but not one for so small an input.
SMALL = {
    "BlockAttention": {"size": 4},
    "GridAttention": {"size": 4},
    "GroupNorm": {"groups": 4},
    "RecursiveGatedConv": {"order": 3},
}


def example(annotation):
    """Random values for an array annotation such as `Float[Array, "b h w c"]`."""
    shape = [AXES.get(axis.strip("*"), 2) for axis in annotation.dim_str.replace("...", "b c").split()]
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def inputs_of(name):
    """An input, the options that must be given, and the inputs beside the first."""
    _, x, *rest = inspect.signature(KERNELS[name]).parameters.values()
    arrays = {p.name: example(p.annotation) for p in rest if hasattr(p.annotation, "dim_str")}
    options = {p.name: OPTIONS[p.name] for p in rest if p.default is p.empty and p.name not in arrays}
    return example(x.annotation), {**options, **SMALL.get(name, {})}, arrays


def in_linen(name, x, options, arrays, key):
    module = getattr(linen.layers, name)(**options)
    variables = module.init(jax.random.key(1), x, **arrays)
    train = {"training": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
    value, updates = module.apply(variables, x, **train, **arrays)
    return variables, value, updates.get("batch_stats", {}), key


def in_nnx(name, x, options, arrays, key):
    module = getattr(nnx_adapter.layers, name)(x, rngs=nnx.Rngs(1), **options, **arrays)
    variables = nnx_adapter.to_variables(module)
    value = module(x, rngs=key, **arrays)
    return variables, value, nnx_adapter.to_variables(module).get("batch_stats", {}), key


def in_eqx(name, x, options, arrays, key):
    make = equinox.nn.make_with_state(getattr(eqx.layers, name))
    samples = {input: array[0] for input, array in arrays.items()}
    module, state = make(x[0], key=jax.random.key(1), **options, **samples)
    variables = eqx.to_variables(module, state)
    value, state = module(x, state, key=key, **arrays)
    return variables, value, eqx.to_variables(module, state).get("batch_stats", {}), key


def in_haiku(name, x, options, arrays, key):
    layer = getattr(haiku.layers, name)
    transformed = hk.transform_with_state(lambda is_training: layer(**options)(x, is_training, **arrays))
    params, state = transformed.init(jax.random.key(1), False)
    value, new = transformed.apply(params, state, key, True)
    variables = haiku.to_variables(params, state)
    return variables, value, haiku.to_variables({}, new).get("batch_stats", {}), next(hk.PRNGSequence(key))


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_a_module_of_every_framework(name):
    kernel = KERNELS[name]
    x, options, arrays = inputs_of(name)
    key = jax.random.key(5)

    leaves = core.flatten(core.spec(kernel, x, **options, **arrays))
    initial = core.init(kernel, jax.random.key(1), x, **options, **arrays)
    for framework, make in zip(ADAPTERS, (in_linen, in_nnx, in_eqx, in_haiku)):
        variables, value, stats, drawn = make(name, x, options, arrays, key)
        output = core.apply(kernel, variables, x, training=True, rng=drawn, **options, **arrays)
        assert {path: leaf.shape for path, leaf in core.flatten(variables).items()} == {
            path: leaf.shape for path, leaf in leaves.items()
        }, framework
        chex.assert_trees_all_equal((value, stats), (output.value, output.batch_stats))
        if framework in ("linen", "eqx") and leaves:
            chex.assert_trees_all_equal(variables, initial)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_layers_are_listed_and_named(adapter):
    assert {"Attention", "MBConv", "LayerNorm", "SqueezeExcite", "RMSNorm", "MLP"} <= set(dir(adapter.layers))
    assert adapter.layers.Attention is adapter.layers.Attention
    assert adapter.layers.Attention.__doc__ == core.attention.__doc__
    assert adapter.layers.Attention.__module__ == adapter.layers.__name__
    with pytest.raises(AttributeError, match="no attribute 'Atention'; did you mean Attention"):
        _ = adapter.layers.Atention


def test_a_users_own_kernel():
    @core.kernel
    def scale_and_shift(scope, x, *, start=1.0):
        gain = scope.param("gain", (x.shape[-1],), core.initializers.constant(start))
        return core.layer_norm(scope["norm"], x) * core.ops.per_channel(gain, x)

    x = jnp.arange(8.0).reshape(2, 4)
    expected = scale_and_shift(core.init(scale_and_shift, jax.random.key(0), x, start=2.0), x)
    module = linen.layers.from_kernel(scale_and_shift)(start=2.0)
    assert repr(module).startswith("ScaleAndShift(") and module.start == 2.0
    np.testing.assert_allclose(module.apply(module.init(jax.random.key(0), x), x), expected)
    np.testing.assert_allclose(
        nnx_adapter.layers.from_kernel(scale_and_shift)(4, start=2.0, rngs=nnx.Rngs(0))(x), expected
    )
    layer = eqx.layers.from_kernel(scale_and_shift)(4, start=2.0, key=jax.random.key(0))
    np.testing.assert_allclose(layer(x[1]), expected[1], rtol=1e-6)
    transformed = hk.transform(lambda x: haiku.layers.from_kernel(scale_and_shift)(start=2.0)(x))
    params = transformed.init(jax.random.key(0), x)
    assert set(params) == {"scale_and_shift", "scale_and_shift/norm"}
    np.testing.assert_allclose(transformed.apply(params, None, x), expected)


def test_what_a_layer_needs():
    with pytest.raises(TypeError, match="num_heads"):
        linen.layers.Attention()
    with pytest.raises(TypeError, match="num_heads"):
        nnx_adapter.layers.Attention((1, 4, 8), rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="heads"):
        eqx.layers.Attention((4, 8), heads=2, num_heads=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="BatchNorm has running statistics: call it with its state"):
        eqx.layers.BatchNorm(8, key=jax.random.key(0))(jnp.ones((2, 8)))


def test_only_layers_that_draw_hold_a_stream():
    rngs = nnx.Rngs(0)
    assert nnx_adapter.layers.Attention((1, 4, 8), num_heads=2, rngs=rngs).rngs is None
    dropout = nnx_adapter.layers.Dropout(64, rate=0.5, rngs=rngs)
    x = jnp.ones((4, 64))
    first, second = dropout(x), dropout(x)
    assert not np.array_equal(first, second)
    dropout.eval()
    np.testing.assert_array_equal(dropout(x), x)


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_options_show_in_signatures(adapter):
    parameters = inspect.signature(adapter.layers.MBConv).parameters
    options = inspect.signature(core.mbconv).parameters
    assert {name: parameters[name].default for name in list(options)[2:]} == {
        name: option.default for name, option in list(options.items())[2:]
    }
    assert parameters["features"].annotation is int and parameters["features"].default is inspect.Parameter.empty
    assert "num_heads: int" in pydoc.plain(pydoc.render_doc(adapter.layers.Attention))
    assert "rngs" in parameters or adapter is not nnx_adapter
    assert inspect.signature(adapter.layers.MBConv.__init__).parameters.keys() >= {"self", "features", "expand_ratio"}


def test_an_example_without_the_axes_that_a_kernel_needs():
    with pytest.raises(ValueError, match=r"MBConv takes an example .* \(b, h, w, c\), got shape \(8,\)"):
        nnx_adapter.layers.MBConv(8, features=8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"MBConv takes an example .* \(h, w, c\), got shape \(2, 8, 8, 3\)"):
        eqx.layers.MBConv((2, 8, 8, 3), features=8, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"Attention takes an example .* n, c\), got shape \(8,\)"):
        nnx_adapter.layers.Attention(8, num_heads=2, rngs=nnx.Rngs(0))
