"""Checks of options."""

import jax
import jax.numpy as jnp
import pytest

import flaim_core as core
from flaim_core.checks import check_heads, per_stage, require_fixed

X = jnp.ones((2, 4))


def test_stages_are_as_many_as_depths():
    assert list(per_stage(depths=(2, 3), dims=(8, 16, 32))) == [(2, 8), (3, 16)]
    with pytest.raises(ValueError, match=r"2 depths need as many dims, got 1: \(8,\)"):
        per_stage(depths=(2, 3), dims=(8,))


def test_widths_divide_into_heads():
    def layer(scope, x):
        check_heads(scope["attn"], 8, 3)

    with pytest.raises(ValueError, match="attn: width 8 does not divide into 3 heads"):
        core.spec(layer, X)


def test_leaves_of_one_size_refuse_symbolic_sizes():
    def layer(scope, x):
        require_fixed(scope["stem"], "pos_embed", x.shape)
        return x

    core.spec(layer, X)
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("h, 4"), jnp.float32)
    with pytest.raises(ValueError, match=r"stem/pos_embed is made for images of one size: .* symbolic \(here hx4\)"):
        core.spec(layer, symbolic)
