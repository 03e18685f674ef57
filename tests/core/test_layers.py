"""Each kernel under every transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.leaks import checking_leaks
from tests.numerics import relative_error

rng = np.random.default_rng(0)
MAP = jnp.asarray(rng.standard_normal((4, 6, 5, 8)), jnp.float32)
TOKENS = jnp.asarray(rng.standard_normal((4, 9, 8)), jnp.float32)

# Kernel, its input, options.
LAYERS = {
    "linear": (core.linear, TOKENS, {"features": 5}),
    "conv": (core.conv, MAP, {"features": 6, "kernel_size": (3, 5), "stride": 2, "groups": 2, "padding": (1, 2)}),
    "batch_norm": (core.batch_norm, MAP, {}),
    "layer_norm": (core.layer_norm, MAP, {}),
    "group_norm": (core.group_norm, MAP, {"groups": 4}),
    "rms_norm": (core.rms_norm, TOKENS, {}),
    "squeeze_excite": (core.squeeze_excite, MAP, {"hidden": 8}),
    "efficient_channel_attention": (core.efficient_channel_attention, MAP, {}),
    "attention": (core.attention, TOKENS, {"num_heads": 2}),
    "mlp": (core.mlp, TOKENS, {"hidden": 16}),
    "patch_embed": (core.patch_embed, MAP[:, :, :4], {"dim": 5, "patch_size": 2}),
    "mbconv": (
        core.mbconv,
        MAP,
        {"features": 8, "expand_ratio": 3, "kernel_size": 5, "se_ratio": 0.5, "group_size": 4},
    ),
    "fused_mbconv": (
        core.fused_mbconv,
        MAP,
        {"features": 5, "expand_ratio": 2, "stride": 2, "group_size": 4, "padding": "same"},
    ),
    "depthwise_separable": (core.depthwise_separable, MAP, {"features": 8, "activate_output": True}),
    "conv_norm_act": (core.conv_norm_act, MAP, {"features": 8, "residual": True}),
    "mixed_conv": (
        core.mixed_conv,
        MAP,
        {"features": 8, "kernel_size": (3, 5, 7), "groups": 8, "stride": 2, "bias": False},
    ),
    "global_context": (core.global_context, MAP, {"hidden": 4}),
    "evo_norm": (core.evo_norm, MAP, {"group_size": 4}),
    "layer_scale": (core.layer_scale, TOKENS, {}),
}


@pytest.mark.parametrize("layer, x, options", LAYERS.values(), ids=LAYERS.keys())
def test_layer_under_every_transformation(layer, x, options):
    variables = core.init(layer, jax.random.key(0), x, **options)

    def run(variables, x, **settings):
        return core.apply(layer, variables, x, training=True, rng=jax.random.key(1), **options, **settings).value

    with checking_leaks():
        expected = jax.jit(run)(variables, x)
        half = jax.jit(lambda v, x: run(v, x, dtype=jnp.bfloat16))(variables, x)
        gradients = jax.jit(jax.grad(lambda v, x: run(v, x).sum()))(variables, x)
        mapped = jax.jit(jax.vmap(run, (None, 0)))(variables, jnp.stack([x, x]))
    assert half.dtype == jnp.bfloat16 and relative_error(half.astype(jnp.float32), expected) < 0.05
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    np.testing.assert_allclose(mapped[1], expected, rtol=1e-5, atol=1e-5)


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


def test_gelu_and_its_derivatives_are_jaxs():
    def outputs(gelu):
        slope = jax.vmap(jax.grad(gelu))
        return gelu(points), slope(points), jax.vmap(jax.grad(lambda x: jnp.sin(jax.grad(gelu)(x))))(points)

    points = jnp.linspace(-9, 9, 400)
    for a, b in zip(outputs(core.gelu), outputs(functools.partial(jax.nn.gelu, approximate=False))):
        assert relative_error(a, b) < 1e-6
    _, pullback = jax.vjp(core.gelu, points)
    assert sum(kept.size for kept in jax.tree.leaves(pullback)) == points.size  # the input alone


@pytest.mark.parametrize("layer", [core.dropout, core.drop_path])
def test_dropping_keeps_the_mean_and_needs_a_key(layer):
    ones = jnp.ones((4000, 5))
    found = core.apply(layer, {}, ones, rate=0.25, training=True, rng=jax.random.key(0)).value
    assert set(np.unique(np.asarray(found)).round(5)) == {0, np.float32(1 / 0.75).round(5)}
    assert abs(float(found.mean()) - 1) < 0.03
    rows = np.asarray(found)
    assert (rows == rows[:, :1]).all() == (layer is core.drop_path)
    np.testing.assert_array_equal(core.apply(layer, {}, ones, rate=0.25).value, ones)
    with pytest.raises(ValueError, match="mask draws random numbers in training: pass rng="):
        core.apply(layer, {}, ones, rate=0.25, training=True)


def test_wrong_options_say_what_is_wrong():
    with pytest.raises(ValueError, match="width 8 does not divide into 3 groups"):
        core.init(core.group_norm, jax.random.key(0), MAP, groups=3)
    with pytest.raises(ValueError, match="width 8 does not divide into 3 heads"):
        core.init(core.attention, jax.random.key(0), TOKENS, num_heads=3)
    with pytest.raises(ValueError, match="6x5 does not divide into patches of 2x2"):
        core.init(core.patch_embed, jax.random.key(0), MAP, dim=3, patch_size=2)
    with pytest.raises(ValueError, match="conv: 3 groups do not divide 8 channels into 6 features"):
        core.spec(lambda scope, x: core.conv(scope["conv"], x, 6, kernel_size=1, groups=3), MAP)
    with pytest.raises(ValueError, match="conv: a feature map of 6x5 is smaller than a window of 7x5"):
        core.spec(lambda scope, x: core.conv(scope["conv"], x, 6, kernel_size=(7, 5), padding=0), MAP)
    with pytest.raises(ValueError, match="fc: a linear layer of 0 features"):
        core.spec(lambda scope, x: core.linear(scope["fc"], x, 0), TOKENS)
