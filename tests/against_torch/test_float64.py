"""float64 stays float64: values and gradients are those of torch in double precision."""

import copy
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import flaim_core as core
from flaim import models
from flaim.models.convnext import simple_norm
from flaim.models.resnetv2 import standardised_conv
from tests import oracle
from tests.against_torch.modules import MODULES
from tests.core.layers.cases import LAYERS, MAP, TOKENS
from tests.numerics import relative_error
from tests.parity import assert_gradient_parity, assert_parity, variables_from

timm = oracle.timm


ALL = {
    **{name: (*case, copy.deepcopy(MODULES[name])) for name, case in LAYERS.items()},
    "standardised_conv": (
        standardised_conv,
        MAP,
        {"features": 6, "kernel_size": 3},
        timm.layers.StdConv2d(8, 6, 3, padding=1, eps=1e-8),
    ),
    "simple_norm": (simple_norm, TOKENS, {}, timm.layers.SimpleNorm(8)),
    "global_response_norm": (
        core.global_response_norm,
        MAP,
        {},
        timm.layers.grn.GlobalResponseNorm(8, channels_last=False),
    ),
    "attention_pool": (
        core.attention_pool,
        TOKENS,
        {"num_heads": 2, "hidden": 16},
        timm.layers.AttentionPoolLatent(
            8, num_heads=2, mlp_ratio=2, norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6)
        ),
    ),
    "differential_attention": (
        functools.partial(core.differential_attention, num_heads=2, lambda_init=0.8 - 0.6 * np.exp(-0.3)),
        TOKENS,
        {},
        timm.layers.DiffAttention(8, num_heads=2, qkv_bias=True, depth=1),
    ),
}


@pytest.fixture(autouse=True)
def double_statistics(monkeypatch):
    """timm computes some statistics in float32 whatever it is given."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.parametrize("layer, x, options, module", ALL.values(), ids=ALL.keys())
def test_layer_is_torchs(layer, x, options, module):
    oracle.randomise(module.eval()).double()
    x = np.asarray(x, np.float64)
    tensor = oracle.to_torch(x) if x.ndim == 4 else torch.tensor(x)
    output = module(tensor.requires_grad_())
    expected = output.detach().numpy()
    weights = np.random.default_rng(2).standard_normal(expected.shape)
    (output * torch.tensor(weights)).sum().backward()
    slopes = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    slope = tensor.grad.numpy()
    if x.ndim == 4:
        slope = slope.transpose(0, 2, 3, 1)
        if not isinstance(module, timm.layers.PatchEmbed):
            expected, weights = (y.transpose(0, 2, 3, 1) for y in (expected, weights))
    with jax.enable_x64(True):
        spec = core.spec(layer, x, **options)
        variables = variables_from(spec, oracle.state(module))

        def loss(params, x):
            found = core.apply(layer, {**variables, "params": params}, x, **options).value
            return (found * weights).sum(), found

        gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (_, found), slopes_found = gradient(variables["params"], jnp.asarray(x))
        slopes = variables_from({"params": spec["params"]}, slopes)["params"], slope
        largest = max(np.abs(slope).max() for slope in jax.tree.leaves(slopes))
        assert found.dtype == jnp.float64
        assert relative_error(found, expected) < 1e-13
        chex.assert_trees_all_close(slopes_found, slopes, rtol=0, atol=1e-11 * largest)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (core.gelu, F.gelu),
        (core.gelu_tanh, functools.partial(F.gelu, approximate="tanh")),
        (core.quick_gelu, lambda x: x * torch.sigmoid(1.702 * x)),
    ],
)
def test_activation_is_torchs(ours, theirs):
    points = torch.linspace(-9, 9, 400, dtype=torch.float64, requires_grad=True)
    expected = theirs(points)
    expected.sum().backward()
    with jax.enable_x64(True):
        x = jnp.asarray(points.detach().numpy())
        assert relative_error(ours(x), expected.detach()) < 1e-13
        assert relative_error(jax.vmap(jax.grad(ours))(x), points.grad) < 1e-11


# timm's options, and ours.
MODELS: dict[str, tuple[dict, dict]] = {
    "test_vit": ({"img_size": 32, "depth": 1}, {"input_size": 32, "depth": 1}),
    "test_convnext2": (
        {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
        {"input_size": 32, "depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    ),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "depths": (2,), "num_heads": (2,), "embed_dim": 16},
        {"input_size": 56, "depths": (2,), "num_heads": (2,), "dim": 16},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_model_is_timms(name):
    theirs, ours = MODELS[name]
    reference = oracle.create(name, num_classes=7, **theirs).double()
    with jax.enable_x64(True):
        model = models.create(name, n_classes=7, **ours)
        images = oracle.image(model.input_size).astype(np.float64)
        assert_parity(model, reference, tolerance=1e-13, images=images)
        assert_gradient_parity(model, reference, tolerance=1e-11, images=images)
