"""The head of a classifier: what `n_classes` and replaced modules change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.core.layers.cases import MAP


def head(scope, x, n_classes=3):
    return core.classifier_head(scope["fc"], x, n_classes, drop_rate=0.5)


@pytest.mark.parametrize("n_classes, shape", [(3, (4, 3)), (-1, (4, 8)), (0, (4, 6, 5, 8))])
def test_n_classes(n_classes, shape):
    leaves = core.flatten(core.spec(head, MAP, n_classes=n_classes))
    assert set(leaves) == ({"params/fc/kernel", "params/fc/bias"} if n_classes > 0 else set())
    assert core.shapes(head, MAP, n_classes=n_classes)[0].shape == shape


def test_a_replaced_classifier_keeps_its_dropout():
    found = core.apply(head, {}, MAP, training=True, rng=jax.random.key(0), modules={"fc": lambda x: x}).value
    means = jnp.mean(MAP, (1, 2))
    dropped = np.asarray(found == 0)
    assert dropped.any() and not dropped.all()
    np.testing.assert_allclose(found, np.where(dropped, 0, 2 * means), rtol=1e-6)
