"""Microbatches: equal parts of a batch, run one after the other, so that a part's feature maps fit the CPU's caches."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from flaim_core import _jax
from flaim_core.lowering import for_single_cpu

# Pixels of a microbatch for each core: two images of 224x224.
_PIXELS_PER_CORE = 2 * 224**2


def num_microbatches(batch_size: int, max_size: int) -> int:
    """The least number of equal parts of a batch that have at most `max_size` members each; 1 for an empty batch."""
    return next((n for n in range(1, batch_size + 1) if batch_size % n == 0 and batch_size // n <= max_size), 1)


def map_microbatches(function: Callable[[Any], Any], x: jax.Array, n: int) -> Any:
    """`function(x)`, computed on one of `n` microbatches of `x` (b, ...) after the other.

    `function` returns a pytree of arrays (b, ...).
    """
    outputs = lax.map(function, x.reshape(n, -1, *x.shape[1:]))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), outputs)


def inference_microbatches(images: Any, variables: Sequence[Any]) -> int:
    """The number of microbatches for inference on `images` (b, h, w, c) with `variables`, a list of leaves.

    1 unless the program is compiled for a single CPU device, without being differentiated or mapped.
    """
    traced = [leaf for leaf in variables if isinstance(leaf, _jax.Tracer)]
    if not all(map(_jax.is_only_under_jit, [images, *traced])) or not for_single_cpu(images, *traced):
        return 1
    max_size = max(_PIXELS_PER_CORE * _cores() // math.prod(images.shape[1:3]), 1)
    return num_microbatches(images.shape[0], max_size)


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def apply_in_microbatches(function: Callable, images: Any, *others: Any, n: int) -> Any:
    """`function(images, *others)`, on a CPU computed on one of `n` microbatches of images (b, h, w, c) after the other.

    `others` are pytrees of arrays, the same for every microbatch. `function` returns a pytree of arrays (b, ...).
    """
    leaves, structure = jax.tree.flatten(others)
    one = jax.ShapeDtypeStruct((images.shape[0] // n, *images.shape[1:]), images.dtype)
    program, outputs = _jax.trace(function, one, *others)

    def on_cpu(images: jax.Array, *leaves: Any) -> list:
        return map_microbatches(lambda part: program(part, *leaves), images, n)

    def whole(images: jax.Array, *leaves: Any) -> list:
        return jax.tree.leaves(function(images, *jax.tree.unflatten(structure, leaves)))

    avals = [y.update(shape=(images.shape[0], *y.shape[1:])) for y in program.outputs]
    found = _jax.lower_per_platform(images, *leaves, cpu=on_cpu, default=whole, outputs=avals, like=program)
    return jax.tree.unflatten(outputs, found)
