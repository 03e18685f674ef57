"""What keeps XLA on a CPU from fusing too much."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from flaim_core.ops._platform import by_platform


def isolate(function: Callable) -> Callable:
    """`function`, compiled by XLA apart from what surrounds it.

    XLA on a CPU fuses a sum of many shifted products with a norm that follows it, and in doing so cuts the sum into
    pieces that each write a whole image: a depthwise 7x7 convolution and a layer norm on 8 x 56x56x96 took 72 ms, each
    on its own 3.6 and 0.6 ms, isolated from one another 5.6 ms together. Optimisation barriers do not help; they are
    gone before fusion, and before equal computations are merged.
    """

    def inside(*args):
        with set_xla_metadata(inlineable=None):  # which holds for the functions that it calls too
            return function(*args)

    compiled = jax.jit(inside)

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


@functools.cache
def isolated(function: Callable, **options: Any) -> Callable:
    """`function` with `options`, isolated, and compiled once for all calls on equal shapes."""
    return isolate(functools.partial(function, **options))


def isolated_on_cpu(jaxpr: ClosedJaxpr) -> Callable[..., list]:
    """The function of flat inputs that `jaxpr` stands for, isolated on a CPU; elsewhere XLA may fuse it as it likes.

    One with effects, sums over devices among them, is not isolated.
    """
    function = jaxpr_as_fun(jaxpr)
    if jaxpr.effects:
        return function
    return functools.partial(by_platform, cpu=isolate(function), default=function, outputs=jaxpr.out_avals)
