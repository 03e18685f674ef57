"""How large a model is: its parameters, and the multiply-adds of a forward pass."""

import math

import jax

import flaim_core as core
from flaim.model import Model
from flaim_core.programs import multiply_adds

__all__ = ["count_multiply_adds", "count_parameters"]


def count_parameters(model: Model) -> int:
    """Number of trained values, without running statistics."""
    return sum(math.prod(leaf.shape) for leaf in core.flatten(model.spec()["params"]).values())


def count_multiply_adds(model: Model) -> int:
    """Multiply-adds of convolutions and matrix products for one image of the model's own size (timm's GMACs)."""
    leaves = jax.tree.map(core.shape_struct, model.spec())
    return multiply_adds(lambda variables, x: model.apply(variables, x).value, leaves, model.image())
