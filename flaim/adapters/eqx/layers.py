"""Every kernel of `flaim_core` as an Equinox module: `layers.Attention((196, 384), num_heads=8, key=key)`."""

from collections.abc import Callable, Hashable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

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
from flaim.adapters.eqx._module import KernelModule


class LayerModule(KernelModule):
    """A kernel as an Equinox module."""

    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "..."],
        state: eqx.nn.State | None = None,
        *,
        key: PRNGKeyArray | None = None,
        **arrays: Any,
    ) -> Any:
        """The value for one sample or for a batch, and, if `state` is given, the new state."""
        output, new_state = self.run(x, state, key, **arrays)
        return output.value if state is None else (output.value, new_state)


def from_kernel(kernel: Callable, name: str | None = None) -> type[LayerModule]:
    """An Equinox module class whose arguments are an example of the kernel's first input, one sample, and its options.

    The example is an array, a shape, or a width if only the last axis matters. Pass examples of other inputs by name,
    and the inputs themselves in the call; options can be passed in the call too: `attention(x, bias=mask)`.
    If the kernel has running statistics, make the module with `eqx.nn.make_with_state`.
    """

    def __init__(
        self,
        x: Any,
        *args: Any,
        key: PRNGKeyArray,
        inference: bool = False,
        axis_name: Hashable = "batch",
        **options: Any,
    ) -> None:
        fixed, arrays = split_options(kernel, args, options)
        check_axes(kernel, type(self).__name__, shape_of(x).shape, samples=True)
        x, arrays = shape_of(x, batch=True), {name: shape_of(a, batch=True) for name, a in arrays.items()}
        layer = fitted(make_layer(kernel, fixed), x, arrays)
        rank = len(x.shape) - 1
        KernelModule.__init__(self, layer, layer.init(key), sample_rank=rank, inference=inference, axis_name=axis_name)

    body = {"__doc__": kernel.__doc__, "__init__": __init__}
    layer = type(name or class_name(kernel.__name__), (LayerModule,), body)
    first = [parameter("x", Any, keyword=False)]
    last = [
        parameter("key", PRNGKeyArray),
        parameter("inference", bool, False),
        parameter("axis_name", Hashable, "batch"),
    ]
    return show_options(layer, kernel, first=first, last=last, arrays=True)


__getattr__, __dir__ = layer_attributes(__name__, lambda name, kernel: from_kernel(kernel, name))
