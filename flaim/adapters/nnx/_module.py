"""The NNX modules of whole models and of kernels."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

import flaim_core as core
from flaim.adapters._common import Layer, fitted
from flaim.adapters._sites import Site
from flaim.adapters.nnx._nodes import Node, Running, at, draw, dropout_stream, leaves_of, merged, split
from flaim.model import Model


class KernelModule(Node):
    """Runs `target`, a `Model` or a layer, on the leaves below it.

    A module that replaced a node is called instead of the node's kernel.
    """

    def __init__(self, target: Model | Layer, variables: Mapping, *, deterministic: bool, rngs: Any):
        params, stats = variables.get("params", {}), variables.get("batch_stats", {})
        super().__init__(Site(target, "", frozenset({*params, *stats})), params, stats, deterministic=deterministic)
        self.deterministic = deterministic
        stream = dropout_stream(rngs)
        self.rngs = nnx.data(None if stream is None else stream.fork())

    @property
    def _target(self) -> Model | Layer:
        return self._site.target

    def __call__(
        self,
        x: Float[Array, "..."],
        *,
        deterministic: bool | None = None,
        use_running_average: bool | None = None,
        rngs: Any = None,
        axis_name: Any = None,
        **arrays: Any,
    ) -> Any:
        """The value for `x`; `arrays` are a kernel's other inputs.

        Calls in training mode update running statistics. `deterministic` overrides `train()` and `eval()`,
        `use_running_average` overrides the setting of the batch norms, and `rngs` (an `nnx.Rngs`, a stream or a key)
        overrides the stream that the module was made with. Under `nnx.capture(model, nnx.Intermediate)` intermediates
        are sown. `axis_name` is a mapped axis whose members form one batch.
        """
        run = Running(self._target, self._target, not self.deterministic, None, None, axis_name)
        run = run.with_mode(deterministic, use_running_average)
        if run.training:
            run = run._replace(key=draw(self.rngs if rngs is None else rngs))
        if getattr(x, "ndim", 0) == 4 or isinstance(self._target, Layer):
            run = run._replace(fitted=fitted(self._target, x, arrays))
        return self._run(self._target, x, run, arrays)


class ImageModel(KernelModule):
    """A framework-free model as an NNX module, in evaluation mode."""

    def __init__(self, model: Model, variables: Mapping, *, rngs: nnx.Rngs | None = None):
        super().__init__(model, variables, deterministic=True, rngs=rngs)
        parents, _, name = model.classifier.rpartition("/")
        node = at(self, model.classifier)
        if model.classifier in self._site.record.calls and {"kernel"} <= set(leaves_of(node)) <= {"kernel", "bias"}:
            setattr(at(self, parents), name, _linear(node))


def wrap(model: Model, variables: dict, *, rngs: nnx.Rngs | None = None) -> ImageModel:
    """A framework-free model and its variables as an NNX module."""
    return ImageModel(model, variables, rngs=rngs)


def to_variables(model: KernelModule, *, merge_lora: bool = False) -> dict:
    """The canonical variables of a module.

    With `merge_lora`, each `nnx.LoRALinear` and each `nnx.LoRA` around a layer is merged into one linear layer in the
    result; `model` doesn't change.

    Raises:
        ValueError: A node was replaced by a module other than an `nnx.Linear` or one of flaim's.
    """
    variables, modules, _ = split(model, lambda path, child: isinstance(child, Node) or type(child) is nnx.Linear)
    flat, foreign = core.flatten(variables), []
    for path, module in modules.items():
        leaves = merged(module)
        if merge_lora and leaves is not None:
            flat |= {f"params/{path}/{name}": leaf for name, leaf in leaves.items()}
        else:
            foreign.append(f"{path}: {type(module).__name__}{'' if leaves is None else ' (merge_lora=True merges it)'}")
    if foreign:
        raise ValueError(
            "only nnx.Linear and flaim's modules have canonical variables; there are also\n" + "\n".join(foreign)
        )
    return core.unflatten(flat)


def _linear(node: Any) -> nnx.Linear:
    """An `nnx.Linear` with the leaves of `node`."""
    kernel, bias = node.kernel[...], node.bias[...] if hasattr(node, "bias") else None
    return nnx.Linear(
        *kernel.shape,
        use_bias=bias is not None,
        kernel_init=lambda *_: kernel,
        bias_init=lambda *_: bias,
        rngs=nnx.Rngs(0),
    )
