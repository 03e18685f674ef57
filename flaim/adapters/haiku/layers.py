"""Every kernel of `flaim_core` as a Haiku module: `layers.MBConv(features=64)(x, is_training)`."""

from collections.abc import Callable
from typing import Any

from flaim.adapters._common import class_name, layer_attributes, make_layer, parameter, parameters, show_options
from flaim.adapters.haiku._module import KernelModule


def from_kernel(kernel: Callable, name: str | None = None) -> type[KernelModule]:
    """A Haiku module class whose arguments are the kernel's options.

    Pass the other inputs in the call; options can be passed there too: `attention(x, bias=mask)`.
    """

    def __init__(self, *args: Any, name: str | None = None, **options: Any) -> None:
        layer = make_layer(kernel, {**dict(zip(parameters(kernel), args)), **options})
        KernelModule.__init__(self, layer, name or kernel.__name__)

    body = {"__doc__": kernel.__doc__, "__init__": __init__}
    layer = type(name or class_name(kernel.__name__), (KernelModule,), body)
    return show_options(layer, kernel, first=[], last=[parameter("name", str | None, None)], arrays=False)


__getattr__, __dir__ = layer_attributes(__name__, lambda name, kernel: from_kernel(kernel, name))
