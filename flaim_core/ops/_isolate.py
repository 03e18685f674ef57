from collections.abc import Callable

import jax
from jax.experimental.xla_metadata import set_xla_metadata


def isolated(function: Callable) -> Callable:
    """`function`, compiled by XLA apart from what surrounds it.

    XLA on a CPU fuses a sum of many shifted products with a norm that follows it, and in doing so cuts the sum into
    pieces that each write a whole image: a depthwise 7x7 convolution and a layer norm on 8 x 56x56x96 took 72 ms, each
    on its own 3.6 and 0.6 ms, isolated from one another 5.6 ms together. Optimisation barriers do not help; they are
    gone before fusion.
    """

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(function)(*args)

    return call
