"""The inference form of a model: batch norm folded into the convolution or linear layer before it."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

import flaim_core as core
from flaim.model import Model

__all__ = ["fuse"]


def fuse(model: Model, variables: Mapping) -> tuple[Model, dict]:
    """The model and its variables with batch norms folded into the layers before them: the same outputs, less work.

    The layer's kernel is multiplied by the norm's scale over its deviation; a `bias` remains at the norm's path. Norms
    that follow no such layer stay as they are. The result is for inference; every adapter's `wrap` takes it.
    """
    flat = core.flatten(variables)
    for path, (layer, eps) in model.fusible_norms().items():
        mean, var = (flat.pop(f"batch_stats/{path}/{name}") for name in ("mean", "var"))
        scale = np.asarray(flat.pop(f"params/{path}/scale"), np.float64) / np.sqrt(np.asarray(var, np.float64) + eps)
        for name in ("kernel", "bias"):
            if (leaf := flat.get(f"params/{layer}/{name}")) is not None:
                flat[f"params/{layer}/{name}"] = jnp.asarray(np.asarray(leaf, np.float64) * scale, leaf.dtype)
        bias = flat[f"params/{path}/bias"]
        flat[f"params/{path}/bias"] = jnp.asarray(np.asarray(bias, np.float64) - mean * scale, bias.dtype)
    return model.replace(fused=True), core.unflatten(flat)
