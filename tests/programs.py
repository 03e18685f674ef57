"""What programs consist of."""

import jax

from flaim_core import ops
from flaim_core.ops.conv.primitive import convolution_p, depthwise_p
from flaim_core.programs import equations

OWN = {"linear_call", "lower_per_platform"} | {
    primitive.name + suffix
    for primitive in (ops._dense.dense_p, convolution_p, depthwise_p)
    for suffix in ("", "_input_gradient", "_kernel_gradient")
}


def primitives(jaxpr) -> set[str]:
    """Names of all operations in a program and in those that it calls."""
    return {equation.primitive.name for equation, _ in equations(jaxpr)}


def own_primitives(function, *args) -> set[str]:
    """Names of flaim's own operations in `function`."""
    return primitives(jax.make_jaxpr(lambda *args: function(*args))(*args).jaxpr) & OWN  # traced anew each time
