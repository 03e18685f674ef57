"""What a traced program consists of."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax

from flaim_core.lowering import lowering

__all__ = ["equations", "multiply_adds"]


def equations(jaxpr: Any) -> Iterator[tuple[Any, int]]:
    """Every equation of a jaxpr and of the jaxprs in its equations, and how often it runs.

    A loop whose length is not known when it is traced counts as one round, all branches of a condition count.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # of a closed one
    for equation in jaxpr.eqns:
        yield equation, 1
        rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from ((inner, rounds * times) for inner, times in equations(value))


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def multiply_adds(fn: Callable, *args: Any) -> int:
    """Multiply-adds of the convolutions and matrix products in `fn(*args)`; arrays may be `jax.ShapeDtypeStruct`.

    The program counted is the portable one: some of those for CPUs do more arithmetic in less time.
    """
    with lowering("portable"):
        jaxpr = jax.make_jaxpr(lambda *args: fn(*args))(
            *args
        )  # a new function, so that no other mode's trace is reused
    return sum(times * _multiply_adds(equation) for equation, times in equations(jaxpr))


def _multiply_adds(equation: Any) -> int:
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            x = equation.invars[0].aval
            return prod(equation.outvars[0].aval.shape) * prod(x.shape[axis] for axis in contracted)
        case "conv_general_dilated":
            kernel, output_axis = equation.invars[1].aval, equation.params["dimension_numbers"].rhs_spec[0]
            return prod(equation.outvars[0].aval.shape) * prod(kernel.shape) // kernel.shape[output_axis]
    return 0
