"""Pure image-model kernels on explicit parameter pytrees: one definition serves spec, init, apply and inference."""

from flaim_core import initializers, ops
from flaim_core.layers import *  # noqa: F403
from flaim_core.layers import __all__ as _layers
from flaim_core.leaf import Leaf, LeafError, init_leaves, mismatches
from flaim_core.lowering import lowering, set_lowering
from flaim_core.readings import Call, Output, apply, calls, init, shapes, spec
from flaim_core.remat import remat
from flaim_core.scope import MissingKeyError, Scope, kernel
from flaim_core.tree import flatten, shape_struct, unflatten

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
    "lowering",
    "mismatches",
    "ops",
    "remat",
    "set_lowering",
    "shape_struct",
    "shapes",
    "spec",
    "unflatten",
    *_layers,
]
