"""The inference form of a model: batch norm folded into the convolution or linear layer before it."""

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import flaim_core as core
from flaim_core import Scope, initializers, ops

if TYPE_CHECKING:
    from flaim.models._model import Model

_BATCH_NORM = inspect.unwrap(core.batch_norm)
_LAYERS = (inspect.unwrap(core.conv), inspect.unwrap(core.linear))
_EPS = inspect.signature(_BATCH_NORM).parameters["eps"].default


class Fold(NamedTuple):
    """A layer whose output goes into a batch norm and nowhere else."""

    layer: str
    eps: float


def shift(scope: Scope, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """What remains of a folded batch norm: its leaf `bias`."""
    return x + ops.per_channel(scope.param("bias", (x.shape[-1],), initializers.zeros), x)


@functools.lru_cache(maxsize=64)
def folds(model: "Model") -> dict[str, Fold]:
    """The batch norms of `model` that can be folded, by their paths."""
    calls = core.calls(model._call, model.image())
    found = {}
    for call in calls:
        layer = None if call.producer is None else calls[call.producer]
        if call.function is _BATCH_NORM and layer is not None and layer.function in _LAYERS and layer.uses == 1:
            found[call.path] = Fold(layer.path, call.options.get("eps", _EPS))
    return found


def fuse(model: "Model", variables: Mapping) -> tuple["Model", dict]:
    """The model and its variables with batch norms folded into the layers before them: the same outputs, less to do.

    A layer's kernel takes in the norm's scale and deviation; of the norm a `bias` remains at its path. Norms
    that follow no such layer stay as they are. The result is for inference; every adapter's `wrap` takes it.
    """
    flat = core.flatten(variables)
    for path, (layer, eps) in folds(model.replace(fused=False)).items():
        mean, var = (flat.pop(f"batch_stats/{path}/{name}") for name in ("mean", "var"))
        scale = np.asarray(flat.pop(f"params/{path}/scale"), np.float64) / np.sqrt(np.asarray(var, np.float64) + eps)
        for name in ("kernel", "bias"):
            if (leaf := flat.get(f"params/{layer}/{name}")) is not None:
                flat[f"params/{layer}/{name}"] = jnp.asarray(np.asarray(leaf, np.float64) * scale, leaf.dtype)
        bias = flat[f"params/{path}/bias"]
        flat[f"params/{path}/bias"] = jnp.asarray(np.asarray(bias, np.float64) - mean * scale, bias.dtype)
    return model.replace(fused=True), core.unflatten(flat)
