import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata


@functools.cache
def isolated(function: Callable, **options: Any) -> Callable:
    """`function` with `options`, compiled by XLA apart from what surrounds it, and once for all calls on equal shapes.

    XLA on a CPU fuses a sum of many shifted products with a norm that follows it, and in doing so cuts the sum into
    pieces that each write a whole image: a depthwise 7x7 convolution and a layer norm on 8 x 56x56x96 took 72 ms, each
    on its own 3.6 and 0.6 ms, isolated from one another 5.6 ms together. Optimisation barriers do not help; they are
    gone before fusion.
    """
    compiled = jax.jit(functools.partial(function, **options))

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call
