"""Pure image-model kernels on explicit parameter pytrees: one definition serves spec, init, apply and inference."""

from flaim_core import initializers, ops
from flaim_core.layers import *  # noqa: F403
from flaim_core.layers import __all__ as _layers
from flaim_core.leaf import Leaf, LeafError, init_leaves, mismatches
from flaim_core.recompute import recomputed
from flaim_core.scope import (
    Call,
    MissingKeyError,
    Output,
    Scope,
    apply,
    calls,
    init,
    kernel,
    shapes,
    spec,
)
from flaim_core.tree import flatten, unflatten

__all__ = [
    "Call",
    "Leaf",
    "LeafError",
    "MissingKeyError",
    "Output",
    "Scope",
    "apply",
    "calls",
    "flatten",
    "init",
    "init_leaves",
    "initializers",
    "kernel",
    "mismatches",
    "ops",
    "recomputed",
    "shapes",
    "spec",
    "unflatten",
    *_layers,
]
