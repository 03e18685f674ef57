"""How `apply` runs blocks: captures, remat, scan."""

import chex
import jax
import jax.numpy as jnp
import pytest

import flaim_core as core
from tests.core.residual import residual
from tests.leaks import checking_leaks


def test_capture_keeps_what_matches(variables, x):
    assert core.apply(residual, variables, x).intermediates == {}
    some = core.apply(residual, variables, x, capture="block_*").intermediates
    assert list(some) == ["block_1", "block_2", "block_3"]
    everything = core.apply(residual, variables, x, capture="*").intermediates
    assert "blocks/1/hidden" in everything and "last/hidden" in everything


def _training(variables, x, **options):
    def loss(params):
        output = core.apply(
            residual, {**variables, "params": params}, x, training=True, rng=jax.random.key(3), capture="*", **options
        )
        return jnp.sum(output.value**2), output

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize("options", [{"remat": True}, {"scan": True}, {"remat": True, "scan": True}], ids=str)
def test_remat_and_scan_change_nothing(variables, x, options):
    with checking_leaks():
        (_, expected), gradients = _training(variables, x)
        (_, found), found_gradients = _training(variables, x, **options)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(found_gradients, gradients, rtol=1e-4, atol=1e-5)


def test_scan_compiles_one_block(variables, x):
    def size(scan):
        text = jax.jit(lambda v, x: core.apply(residual, v, x, scan=scan, depth=3).value).lower(variables, x).as_text()
        return text.count("dot_general")

    assert (size(False), size(True)) == (5, 3)


def test_scan_over_unequal_blocks_says_where(variables, x):
    variables["params"]["blocks"]["1"]["fc"]["kernel"] = jnp.zeros((6, 5))
    with pytest.raises(core.LeafError, match="params/blocks/1/fc/kernel: found shape"):
        core.apply(residual, variables, x, scan=True)
