"""A batch in equal parts, one after the other, so that what each part needs fits the processor's caches."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from flaim_core import _jax
from flaim_core.lowering import for_cpu_alone

# Pixels of a microbatch for each core: two images of 224x224, whose feature maps then stay in the caches.
_PIXELS_PER_CORE = 2 * 224**2


def fewest_parts(batch: int, at_most: int) -> int:
    """Into how few equal parts of at most `at_most` members a batch divides; 1 for an empty batch."""
    return next((n for n in range(1, batch + 1) if batch % n == 0 and batch // n <= at_most), 1)


def in_parts(function: Callable[[Any], Any], x: jax.Array, parts: int) -> Any:
    """`function(x)`, a tree of arrays with a batch axis in front, one part of the batch after the other."""
    outputs = lax.map(function, x.reshape(parts, -1, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), outputs)


def microbatches(images: Any, leaves: Sequence[Any]) -> int:
    """How many microbatches inference on `images` (b, h, w, c) with these variables takes.

    1 where no CPU runs the program by itself, where nothing is being compiled, and where something is differentiated
    or mapped.
    """
    traced = [leaf for leaf in leaves if isinstance(leaf, _jax.Tracer)]
    if not all(map(_jax.is_only_compiled, [images, *traced])) or not for_cpu_alone(images, *traced):
        return 1
    at_most = max(_PIXELS_PER_CORE * _cores() // math.prod(images.shape[1:3]), 1)
    return fewest_parts(images.shape[0], at_most)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_microbatches(function: Callable, images: Any, *others: Any, parts: int) -> Any:
    """`function(images, *others)`, a tree of arrays with a batch axis in front; on a CPU, in `parts` microbatches.

    `others` are trees of arrays.
    """
    leaves, structure = jax.tree.flatten(others)
    one = jax.ShapeDtypeStruct((images.shape[0] // parts, *images.shape[1:]), images.dtype)
    program, outputs = _jax.trace(function, one, *others)

    def on_cpu(images: jax.Array, *leaves: Any) -> list:
        return in_parts(lambda part: program(part, *leaves), images, parts)

    def whole(images: jax.Array, *leaves: Any) -> list:
        return jax.tree.leaves(function(images, *jax.tree.unflatten(structure, leaves)))

    avals = [y.update(shape=(images.shape[0], *y.shape[1:])) for y in program.outputs]
    found = _jax.lower_per_platform(images, *leaves, cpu=on_cpu, default=whole, outputs=avals, like=program)
    return jax.tree.unflatten(outputs, found)
