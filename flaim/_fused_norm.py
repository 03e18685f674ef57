"""Which batch norms of a model can be folded into the layer before them, and what remains of a folded one."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

import flaim_core as core
from flaim_core import Scope, initializers, ops

_BATCH_NORM = inspect.unwrap(core.batch_norm)
_LAYERS = (inspect.unwrap(core.conv), inspect.unwrap(core.linear))
_EPS = inspect.signature(_BATCH_NORM).parameters["eps"].default


class FusedNorm(NamedTuple):
    """The layer whose output only a batch norm reads, and the norm's epsilon."""

    layer: str
    eps: float


def fusible_norms(fn: Callable, images: jax.ShapeDtypeStruct) -> dict[str, FusedNorm]:
    """The batch norms of the kernel `fn` that can be folded, by their paths."""
    calls = core.calls(fn, images)
    found = {}
    for call in calls:
        layer = None if call.producer is None else calls[call.producer]
        if call.function is _BATCH_NORM and layer is not None and layer.function in _LAYERS and layer.uses == 1:
            found[call.path] = FusedNorm(layer.path, call.options.get("eps", _EPS))
    return found


def fused_batch_norm(scope: Scope, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """What remains of a folded batch norm: its bias."""
    return x + ops.per_channel(scope.param("bias", (x.shape[-1],), initializers.zeros), x)
