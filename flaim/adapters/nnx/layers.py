"""Every kernel of `flaim_core` as an NNX module: `layers.Attention((1, 196, 384), num_heads=8, rngs=rngs)`."""

from collections.abc import Callable
from typing import Any

from flax import nnx

import flaim_core as core
from flaim.adapters._common import (
    check_axes,
    class_name,
    fitted,
    layer_attributes,
    make_layer,
    parameter,
    shape_of,
    show_options,
    split_options,
)
from flaim.adapters.nnx._module import KernelModule


def from_kernel(kernel: Callable, name: str | None = None) -> type[KernelModule]:
    """An NNX module class whose arguments are an example of the kernel's first input and the kernel's options.

    The example is an array, a shape, or a width if only the last axis matters. Pass examples of other inputs by name,
    and the inputs themselves in the call; options can be passed in the call too: `attention(x, bias=mask)`.
    """

    def __init__(self, x: Any, *args: Any, rngs: nnx.Rngs, **options: Any) -> None:
        fixed, arrays = split_options(kernel, args, options)
        check_axes(kernel, type(self).__name__, shape_of(x).shape)
        layer = fitted(make_layer(kernel, fixed), shape_of(x), arrays)
        draws = layer.draws()
        KernelModule.__init__(self, layer, layer.init(rngs.params()), deterministic=False, rngs=rngs if draws else None)

    body = {"__doc__": kernel.__doc__, "__init__": __init__}
    layer = type(name or class_name(kernel.__name__), (KernelModule,), body)
    if kernel is core.batch_norm:
        nnx.BatchNorm.register(layer)  # so that filters by nnx.BatchNorm find it
    first, last = [parameter("x", Any, keyword=False)], [parameter("rngs", nnx.Rngs)]
    return show_options(layer, kernel, first=first, last=last, arrays=True)


__getattr__, __dir__ = layer_attributes(__name__, lambda name, kernel: from_kernel(kernel, name))
