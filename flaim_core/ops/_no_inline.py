"""Functions that XLA on a CPU compiles apart from what surrounds them.

XLA on a CPU fuses too much: a sum of many shifted products with the norm that follows it is cut into pieces that each
write a whole image, and a chain of residual blocks is computed again from its beginning in each block.
"""

import functools
from collections.abc import Callable
from typing import Any

from flaim_core import _jax
from flaim_core._jax import Program


@functools.cache
def no_inline(function: Callable, **options: Any) -> Callable:
    """`function` with hashable `options`, compiled apart, and once for all calls on equal shapes; for a CPU alone."""
    return _jax.no_inline(functools.partial(function, **options))


def no_inline_program(program: Program) -> Callable[..., list]:
    """A program of flat inputs, compiled apart on a CPU; elsewhere XLA may fuse it as it likes.

    One with effects, sums over devices among them, stays as it is.
    """
    if program.has_effects:
        return program
    cpu = _jax.no_inline(program)
    return functools.partial(_jax.lower_per_platform, cpu=cpu, default=program, outputs=program.outputs, like=program)
