"""Every layer under every transformation."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.core.layers.cases import LAYERS, MAP, TOKENS
from tests.leaks import checking_leaks
from tests.numerics import relative_error


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


def test_every_layer_of_the_original_has_its_name_in_the_documentation():
    """In the second column of the table, that is."""
    text = (Path(__file__).parents[3] / "docs" / "original.md").read_text()
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert len(names) > 30 and not [name for name in names if not hasattr(core, name)]
