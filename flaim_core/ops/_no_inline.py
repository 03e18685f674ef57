"""Functions that XLA for CPUs compiles on their own, without fusing them with the operations around them.

XLA for CPUs fuses too much. It splits a sum of many shifted products that is fused with the norm after it into several
loops, each of which writes a whole feature map. And in a chain of residual blocks it recomputes, in each block, all
blocks before it.
"""

import functools
from collections.abc import Callable
from typing import Any

from flaim_core import _jax
from flaim_core._jax import Program


@functools.cache
def no_inline(function: Callable, **options: Any) -> Callable:
    """`function` with hashable `options`, compiled on its own, once for all calls with equal shapes. For CPUs only."""
    return _jax.no_inline(functools.partial(function, **options))


def no_inline_program(program: Program) -> Callable[..., list]:
    """`program` as a function that is compiled on its own on a CPU and inlined on other platforms.

    A program with effects (`psum`, say) is returned unchanged.
    """
    if program.has_effects:
        return program
    cpu = _jax.no_inline(program)
    return functools.partial(_jax.lower_per_platform, cpu=cpu, default=program, outputs=program.outputs, like=program)
