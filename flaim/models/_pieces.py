"""A batch in pieces: on a CPU, inference runs a few images at a time, so that feature maps stay in the caches.

Measured on 2 cores (float32, jax 0.10.2, 8 images of 224x224), the whole batch and pieces of 4: ResNet-50 346 and 330 ms,
ConvNeXt-T 471 and 381, EfficientNet-B0 99 and 89, MobileNetV2 69 and 62, Swin-T 416 and 367, ViT-S 305 and 292. What
passes 32 MB, such as ConvNeXt-T's 56x56x384 for 8 images, is written three times as slowly as what stays below.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jaxtyping import Array

_PIXELS_A_CORE = 2 * 224**2


def pieces_of(x: Array, variables: Any) -> int:
    """Into how many pieces a batch of images goes, at best as many pixels in each as are right for this many cores.

    One, where nothing is being compiled (each call would compile the pieces anew), where something is differentiated or
    mapped, and where several devices may share the batch.
    """
    compiled = all(isinstance(leaf, DynamicJaxprTracer) or not isinstance(leaf, jax.core.Tracer) for leaf in variables)
    if not isinstance(x, DynamicJaxprTracer) or not compiled or jax.device_count() > 1:
        return 1
    images = _PIXELS_A_CORE * len(os.sched_getaffinity(0)) // math.prod(x.shape[1:3])
    return next((n for n in range(1, x.shape[0]) if x.shape[0] % n == 0 and x.shape[0] // n <= max(images, 1)), 1)


def in_pieces(function: Callable[[Array], Any], x: Array, pieces: int) -> Any:
    """`function(x)`, a tree of arrays with a batch axis in front, with the batch in pieces on a CPU."""

    def mapped(x: Array) -> Any:
        outputs = lax.map(function, x.reshape(pieces, -1, *x.shape[1:]))
        return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), outputs)

    return lax.platform_dependent(x, cpu=mapped, default=function)
