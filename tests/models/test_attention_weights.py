"""Attention weights are captured where a pattern names them, in every family that attends."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from flaim.adapters import eqx as equinox_adapter
from flaim.adapters import haiku as haiku_adapter
from flaim.models.vit import (
    attention_pooling,
    diff_parallel_scaling_block,
    differential_schedule,
    parallel_scaling_block,
)
from tests.oracle import relative_error
from tests.small import images, randomised, small

VIT = {"depth": 2}
# Model, and the shapes of its weights for two images: (heads, queries, keys), before them the windows.
MODELS = {
    "vit": (small("vit", **VIT), {f"blocks/{i}/attn/weights": (2, 2, 5, 5) for i in range(2)}),
    "scanned": (small("vit", **VIT, scan=True), {f"blocks/{i}/attn/weights": (2, 2, 5, 5) for i in range(2)}),
    "merged": (
        small("vit", **VIT, block=parallel_scaling_block),
        {f"blocks/{i}/attn/weights": (2, 2, 5, 5) for i in range(2)},
    ),
    "differential": (
        small("vit", **VIT, block=diff_parallel_scaling_block, lambda_init=differential_schedule),
        {f"blocks/{i}/attn/weights": (2, 4, 5, 5) for i in range(2)},
    ),
    "pooled": (
        small("vit", depth=1, pool=attention_pooling),
        {"blocks/0/attn/weights": (2, 2, 5, 5), "attn_pool/weights": (2, 2, 1, 4)},
    ),
    "rotated": (small("eva"), {f"blocks/{i}/attn/weights": (2, 2, 5, 5) for i in range(2)}),
    "swin": (
        small("swin"),
        {
            "layers/0/blocks/0/attn/weights": (2, 4, 1, 49, 49),
            "layers/0/blocks/1/attn/weights": (2, 4, 1, 49, 49),
            "layers/1/blocks/0/attn/weights": (2, 1, 2, 49, 49),
            "layers/1/blocks/1/attn/weights": (2, 1, 2, 49, 49),
        },
    ),
    "cait": (
        small("cait"),
        {
            **{f"blocks/{i}/attn/weights": (2, 2, 4, 4) for i in range(2)},
            "blocks_token_only/0/attn/weights": (2, 2, 1, 5),
        },
    ),
    "xcit": (
        small("xcit"),
        {
            **{f"blocks/{i}/attn/weights": (2, 2, 8, 8) for i in range(2)},
            "cls_attn_blocks/0/attn/weights": (2, 2, 1, 17),
        },
    ),
    "swinv2": (
        small("swinv2"),
        {
            "layers/0/blocks/0/attn/weights": (2, 4, 1, 16, 16),
            "layers/0/blocks/1/attn/weights": (2, 4, 1, 16, 16),
            "layers/1/blocks/0/attn/weights": (2, 1, 2, 16, 16),
        },
    ),
    "davit": (
        small("davit"),
        {
            "stages/0/blocks/0/0/attn/weights": (2, 4, 1, 49, 49),
            "stages/0/blocks/0/1/attn/weights": (2, 1, 16, 16),
            "stages/1/blocks/0/0/attn/weights": (2, 1, 2, 49, 49),
            "stages/1/blocks/0/1/attn/weights": (2, 2, 16, 16),
        },
    ),
    "maxvit": (
        small("maxvit"),
        {
            f"stages/{i}/blocks/0/attn_{kind}/attn/weights": (2, 64 // 4**i, 1 + i, 4, 4)
            for i in range(2)
            for kind in ("block", "grid")
        },
    ),
}


@pytest.mark.parametrize("model, shapes", MODELS.values(), ids=MODELS.keys())
def test_weights_are_captured_by_name_alone(model, shapes):
    variables, x = randomised(model), images(model)
    run = jax.jit(lambda v, x, capture: model.apply(v, x, capture=capture), static_argnums=2)
    output, everything = run(variables, x, "*attn*"), jax.eval_shape(lambda v, x: run(v, x, "*"), variables, x)
    assert {path: weights.shape for path, weights in output.intermediates.items()} == shapes
    assert everything.intermediates and not any("weights" in path for path in everything.intermediates)
    for weights in output.intermediates.values():
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        assert weights.min() >= 0 and weights.std() > 0


def test_weights_are_the_softmax_of_products():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 8)), jnp.float32)
    bias = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 5)), jnp.float32)
    variables = core.init(core.attention, jax.random.key(0), x, num_heads=2)
    output = core.apply(core.attention, variables, x, num_heads=2, bias=bias, capture="weights")
    qkv = x @ variables["params"]["qkv"]["kernel"] + variables["params"]["qkv"]["bias"][None, None]
    query, key, value = jnp.moveaxis(qkv.reshape(2, 5, 3, 2, 4), 2, 0)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) / 2 + bias[None], axis=-1)
    assert relative_error(output.intermediates["weights"], weights) < 1e-6
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(2, 5, 8)
    expected = mixed @ variables["params"]["proj"]["kernel"] + variables["params"]["proj"]["bias"][None, None]
    assert relative_error(output.value, expected) < 1e-6
    half = core.apply(core.attention, variables, x, num_heads=2, bias=bias, capture="weights", dtype=jnp.bfloat16)
    assert half.intermediates["weights"].dtype == jnp.float32


def test_frameworks_take_the_pattern():
    model, shapes = MODELS["vit"]
    variables, x = randomised(model), images(model)
    expected = jax.jit(lambda v, x: model.apply(v, x, capture="*attn*").intermediates)(variables, x)
    module, state = equinox_adapter.wrap(model, variables)
    (_, found), _ = eqx.filter_jit(module)(x, state, capture="*attn*")
    transformed, params, state = haiku_adapter.wrap(model, variables)
    capture = jax.jit(transformed.apply, static_argnames="capture")
    (_, again), _ = capture(params, state, None, x, capture="*attn*")
    for path in shapes:
        assert relative_error(found[path], expected[path]) < 1e-5
        assert relative_error(again[path], expected[path]) < 1e-5
