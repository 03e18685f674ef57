"""Two small models with variables, and how to tell that a folder holds one of them."""

import chex
import jax
import jax.numpy as jnp

from flaim.models import create
from flaim.weights import get_model

PREPROCESSING = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.9, "test_input_size": (64, 64)}


def make(seed: int, n_classes: int = 3):
    model = create("test_resnet", n_classes=n_classes, input_size=32, widths=(16, 24, 24, 32))
    variables = model.init(jax.random.key(seed))
    variables["params"]["fc"]["bias"] = jnp.arange(n_classes, dtype=jnp.bfloat16)
    return model, variables


def holds(folder, model, variables) -> bool:
    """Whether what is loaded from the folder is this model, bit for bit."""
    found, tree, _ = get_model(folder)
    if found != model:
        return False
    chex.assert_trees_all_equal_dtypes(tree, variables)
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), tree, variables))
