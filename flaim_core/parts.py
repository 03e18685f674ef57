"""A batch in equal parts, one after the other, so that what each needs fits the caches."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def fewest_parts(batch: int, at_once: int) -> int:
    """The least number of equal parts of a batch that have at most `at_once` members each; 1 for an empty batch."""
    return next((n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= at_once), 1)


def in_parts(function: Callable[[Any], Any], x: jax.Array, parts: int) -> Any:
    """`function(x)`, a tree of arrays with a batch axis in front, of one part of the batch after another."""
    outputs = lax.map(function, x.reshape(parts, -1, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), outputs)
