"""Every kernel of `flaim_core` as a Linen module: `layers.MBConv(features=64)(x, training)`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from flaim.adapters._common import Layer, class_name, layer_attributes, make_layer, parameters
from flaim.adapters.linen._module import KernelModule


def from_kernel(kernel: Callable, name: str | None = None) -> type[KernelModule]:
    """A Linen module class whose fields are the kernel's options.

    Pass the other inputs in the call; options can be passed there too: `attention(x, bias=mask)`.
    """
    options = sorted(parameters(kernel).values(), key=lambda p: p.default is not p.empty)

    @nn.nowrap
    def target(self) -> Layer:
        return make_layer(kernel, {p.name: getattr(self, p.name) for p in options})

    fields = {p.name: p.default for p in options if p.default is not p.empty}
    annotations = {p.name: Any if p.annotation is p.empty else p.annotation for p in options}
    body = {"__annotations__": annotations, "__doc__": kernel.__doc__, "target": target, **fields}
    return type(name or class_name(kernel.__name__), (KernelModule,), body)


__getattr__, __dir__ = layer_attributes(__name__, lambda name, kernel: from_kernel(kernel, name))
