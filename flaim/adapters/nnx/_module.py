"""The NNX modules that hold a model's or a kernel's leaves."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

import flaim_core as core
from flaim.adapters._common import Layer, asking_for_key
from flaim.models import Model

# Attributes of a module that are not part of the variable tree.
_OPTIONS = ("deterministic", "rngs")


class Node(nnx.Module):
    """A node of the variable tree: leaves and nodes below are attributes, and `node[0]` is the one called "0"."""

    def __init__(self, params: Mapping, batch_stats: Mapping):
        for name in {**params, **batch_stats}:
            param, stat = params.get(name), batch_stats.get(name)
            if isinstance(param, Mapping) or isinstance(stat, Mapping):
                setattr(self, name, Node(param or {}, stat or {}))
            else:
                setattr(self, name, nnx.BatchStat(stat) if param is None else nnx.Param(param))

    def __getitem__(self, index: int) -> Any:
        """The node called `index`."""
        if str(index) not in vars(self):
            raise IndexError(f"there is no node {index}")
        return getattr(self, str(index))

    def __setitem__(self, index: int, module: Any) -> None:
        """Replace the node called `index`."""
        setattr(self, str(index), module)


class KernelModule(Node):
    """Runs `target`, a `Model` or a layer, on the leaves below it.

    A node that has been replaced by another module is called in the place of the kernel that was there.
    """

    def __init__(self, target: Model | Layer, variables: Mapping, *, deterministic: bool, rngs: Any):
        super().__init__(variables.get("params", {}), variables.get("batch_stats", {}))
        self._target = target
        self.deterministic = deterministic
        stream = rngs.dropout if isinstance(rngs, nnx.Rngs) else rngs
        self.rngs = nnx.data(None if stream is None else stream.fork())

    def __call__(
        self,
        x: Float[Array, "..."],
        *,
        deterministic: bool | None = None,
        rngs: Any = None,
        axis_name: Any = None,
        **arrays: Any,
    ) -> Any:
        """The value for `x`; `arrays` are a kernel's other inputs.

        In training running statistics are updated. `deterministic` overrides `train()` and `eval()`; `rngs`, an
        `nnx.Rngs`, a stream or a key, the stream that the module was made with. Under `nnx.capture(model,
        nnx.Intermediate)` intermediates are sown. `axis_name` is a mapped axis whose members form one batch.
        """
        training = not (self.deterministic if deterministic is None else deterministic)
        variables, modules = _split(self, self._runs_as_leaves)
        with asking_for_key("rngs=nnx.Rngs(dropout=0), to the call or when the model is made"):
            output = self._target.apply(
                variables,
                x,
                training=training,
                rng=_draw(self.rngs if rngs is None else rngs) if training else None,
                capture="*" if hasattr(self, "__captures__") else None,
                axis_name=axis_name,
                modules=modules,
                **arrays,
            )
        for path, value in output.intermediates.items():
            self.sow(nnx.Intermediate, path, value)
        if training:
            for path, value in core.flatten(output.batch_stats).items():
                _at(self, path).set_value(value)
        return output.value

    def _runs_as_leaves(self, path: str, child: Any) -> bool:
        """Whether a kernel reads the leaves of what is at `path`; what a user put there is called instead."""
        if type(child) is nnx.Linear:
            return _is_as_specified(child, self._target.spec()["params"], path)
        return type(child) is Node

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` may change."""
        if deterministic is not None:
            self.deterministic = deterministic


class ImageModel(KernelModule):
    """A framework-free model as an NNX module, in evaluation mode."""

    def __init__(self, model: Model, variables: Mapping, *, rngs: nnx.Rngs | None = None):
        super().__init__(model, variables, deterministic=True, rngs=rngs)
        parents, _, name = model.classifier.rpartition("/")
        node = _at(self, model.classifier)
        if isinstance(node, Node) and {"kernel"} <= set(_children(node)) <= {"kernel", "bias"}:
            setattr(_at(self, parents), name, _linear(node))


def wrap(model: Model, variables: dict, *, rngs: nnx.Rngs | None = None) -> ImageModel:
    """A framework-free model and its variables as an NNX module."""
    return ImageModel(model, variables, rngs=rngs)


def to_variables(model: KernelModule) -> dict:
    """The canonical variables of a module.

    Raises:
        ValueError: A node was replaced by a module other than an `nnx.Linear` or one of flaim's.
    """
    variables, modules = _split(model, lambda path, child: isinstance(child, Node | nnx.Linear))
    if modules:
        foreign = "\n".join(f"{path}: {type(module).__name__}" for path, module in modules.items())
        raise ValueError(f"only nnx.Linear and flaim's modules have canonical variables; there are also\n{foreign}")
    return variables


def _at(node: Any, path: str) -> Any:
    """What is at `path` below a node, None where nothing is."""
    return functools.reduce(lambda child, name: getattr(child, name, None), filter(None, path.split("/")), node)


def _draw(rngs: Any) -> Any:
    """A key of an `nnx.Rngs`, of a stream, or as it is."""
    if isinstance(rngs, nnx.Rngs):
        return rngs.dropout()
    return rngs() if isinstance(rngs, nnx.RngStream) else rngs


def _children(node: Any) -> dict[str, Any]:
    """What a node holds of the variable tree; of a module that is no node, its variables."""
    if not isinstance(node, Node):
        return {name: child for name, child in vars(node).items() if isinstance(child, nnx.Variable)}
    return {name: child for name, child in vars(node).items() if name[0] != "_" and name not in _OPTIONS}


def _split(node: Any, is_open: Callable[[str, Any], bool]) -> tuple[dict, dict[str, Callable]]:
    """The variables below a node, and, by path, the modules there that are not `is_open(path, module)`."""
    flat: dict[str, Array] = {}
    modules: dict[str, Callable] = {}

    def walk(node: Any, prefix: str) -> None:
        for name, child in _children(node).items():
            path = prefix + name
            if isinstance(child, nnx.Variable):
                collection = "batch_stats" if isinstance(child, nnx.BatchStat) else "params"
                flat[f"{collection}/{path}"] = child.get_value()
            elif is_open(path, child):
                walk(child, path + "/")
            elif callable(child):
                modules[path] = child
            else:
                raise TypeError(f"{path} is {child!r}, expected a module")

    walk(node, "")
    return core.unflatten(flat), modules


def _linear(node: Any) -> nnx.Linear:
    """An `nnx.Linear` that has the leaves of `node`."""
    kernel, bias = node.kernel[...], node.bias[...] if hasattr(node, "bias") else None
    return nnx.Linear(
        *kernel.shape,
        use_bias=bias is not None,
        kernel_init=lambda *_: kernel,
        bias_init=lambda *_: bias,
        rngs=nnx.Rngs(0),
    )


def _is_as_specified(linear: nnx.Linear, spec: Mapping, path: str) -> bool:
    """Whether a linear layer has the leaves of the kernel at `path`, and nothing that computes otherwise."""
    leaves = functools.reduce(lambda tree, name: tree.get(name, {}), path.split("/"), spec)
    shapes = {name: variable.shape for name, variable in _children(linear).items()}
    plain = (linear.dtype, linear.precision, linear.dot_general) == (None, None, jax.lax.dot_general)
    return plain and shapes == {name: leaf.shape for name, leaf in leaves.items() if isinstance(leaf, core.Leaf)}
