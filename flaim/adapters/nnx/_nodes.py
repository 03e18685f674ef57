"""NNX modules for the nodes of a variable tree; their classes are named after the kernels that run there."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim.adapters._common import Layer, asking_for_key, inside_nodes
from flaim.adapters._sites import Site
from flaim.model import Model


class Running(NamedTuple):
    """State of a running call of `target`, for nodes that are called during it; `fitted` is `target` for its input."""

    target: Model | Layer
    fitted: Model | Layer
    training: bool
    use_running_average: bool | None
    key: PRNGKeyArray | None
    axis_name: Any

    def with_mode(self, deterministic: bool | None, use_running_average: bool | None) -> "Running":
        """A copy in the mode that a caller asks for; if `deterministic` changes the mode, batch norm follows it."""
        changes = deterministic is not None and deterministic == self.training
        return self._replace(
            training=self.training != changes,
            use_running_average=deterministic if changes and use_running_average is None else use_running_average,
        )


_running: ContextVar[Running | None] = ContextVar("running", default=None)


@contextlib.contextmanager
def running(call: Running) -> Iterator[None]:
    """Context in which `call` is the running call."""
    token = _running.set(call)
    try:
        yield
    finally:
        _running.reset(token)


class Node(nnx.Module):
    """A node of the variable tree: leaves and child nodes are attributes, and `node[0]` is the child called "0".

    A node with a kernel can be called. If the kernel behaves differently in training, the node has the attribute
    `deterministic`, or `use_running_average` if it is a batch norm; `train()`, `eval()`, `set_attributes` and
    `nnx.view` set them. Users can add other attributes.
    """

    def __init__(self, site: Site, params: Mapping, batch_stats: Mapping, *, deterministic: bool):
        self._site = site
        if site.path in site.record.norms:
            self.use_running_average = deterministic
        elif site.call is not None and site.path in site.record.modal:
            self.deterministic = deterministic
        for name in {**params, **batch_stats}:
            param, stat = params.get(name), batch_stats.get(name)
            if isinstance(param, Mapping) or isinstance(stat, Mapping):
                param, stat = param or {}, stat or {}
                below = site.below(name, {*param, *stat})
                child: Any = node_class(below.kind)(below, param, stat, deterministic=deterministic)
            else:
                child = nnx.BatchStat(stat) if param is None else nnx.Param(param)
            super().__setattr__(name, child)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a callable module can only replace a node with a kernel."""
        if isinstance(value, nnx.Module) and callable(value) and self._site.join(name) not in self._site.record.calls:
            raise AttributeError(self._site.missing(name))
        super().__setattr__(name, value)

    def __getitem__(self, index: int | slice) -> Any:
        """The node called `index`; negative ones count from the last."""
        if isinstance(index, slice):
            return list(self)[index]
        numbers = self._numbers()
        if index < 0 and -index <= len(numbers):
            index = numbers[index]
        if index not in numbers:
            raise IndexError(f"there is no node {index}")
        return getattr(self, str(index))

    def __setitem__(self, index: int, module: Any) -> None:
        """Replace the node called `index`."""
        setattr(self, str(self._numbers()[index] if index < 0 else index), module)

    def __len__(self) -> int:
        """The number of numbered nodes."""
        return len(self._numbers())

    def __iter__(self) -> Iterator[Any]:
        """The numbered nodes."""
        return (getattr(self, str(number)) for number in self._numbers())

    def __bool__(self) -> bool:
        """True, even without numbered nodes."""
        return True

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._site.names if name.isdigit())

    def __call__(
        self,
        x: Any,
        *,
        deterministic: bool | None = None,
        use_running_average: bool | None = None,
        rngs: Any = None,
        axis_name: Any = None,
        **arrays: Any,
    ) -> Any:
        """The output of the node's kernel for `x`, with the model's options and the leaves below.

        `arrays` are other inputs of the kernel, or options that override the model's. The other arguments are the same
        as the model's. If a replacement module calls this node while the model runs, they default to the model's.
        """
        run = _running.get()
        if run is not None and run.target != self._site.target:
            run = None
        own = getattr(self, "deterministic", getattr(self, "use_running_average", True))
        if run is None:
            run = Running(self._site.target, self._site.target, not own, None, None, None)
        run = run.with_mode(deterministic, use_running_average)
        if rngs is not None:
            run = run._replace(key=draw(rngs))
        if axis_name is not None:
            run = run._replace(axis_name=axis_name)
        return self._run(self._site.of(run.fitted), x, run, arrays)

    def _run(self, target: Any, x: Any, run: Running, arrays: Mapping) -> Any:
        """Apply `target` (a `Model`, a layer or a site) to `x`, sow intermediates, and store new running statistics."""
        variables, modules, norms = split(self)
        average = run.use_running_average
        if average is None and norms:
            average = all(norm.use_running_average for norm in norms.values())
            if not average and any(norm.use_running_average for norm in norms.values()):
                modules |= {path: norm for path, norm in norms.items() if norm.use_running_average}
        if hasattr(self, "_nnx_tabulate_id"):  # so that `nnx.tabulate` has a row for each node
            modules = {**_callable_nodes(self), **modules}
        how = "rngs=nnx.Rngs(dropout=0), to the call or when the model is made"
        depth = len(self._site.parts)
        inside = inside_nodes(lambda path, run: _inside(at(self, "/".join(path[depth:])), run))
        with asking_for_key(how), running(run), inside:
            output = target.apply(
                variables,
                x,
                training=run.training,
                use_running_average=average,
                rng=run.key if run.training else None,
                capture="*" if hasattr(self, "__captures__") else None,
                axis_name=run.axis_name,
                modules=modules,
                **arrays,
            )
        for path, value in output.intermediates.items():
            self.sow(nnx.Intermediate, path, value)
        if run.training or average is False:
            for path, value in core.flatten(output.batch_stats).items():
                at(self, path).set_value(value)
        return output.value

    def set_view(self, deterministic: bool | None = None, use_running_average: bool | None = None) -> None:
        """What `nnx.view` may change.

        Args:
          deterministic: if True, nothing is dropped.
          use_running_average: if True, batch norm uses running statistics and leaves them as they are.
        """
        for name, value in (("deterministic", deterministic), ("use_running_average", use_running_average)):
            if value is not None and hasattr(self, name):
                setattr(self, name, value)


@functools.cache
def node_class(name: str) -> type[Node]:
    """The class of nodes whose kernel has this class name."""
    node = type(name, (Node,), {"__module__": __name__, "__doc__": Node.__doc__})
    if name == "BatchNorm":
        nnx.BatchNorm.register(node)  # so that filters by nnx.BatchNorm find it
    return node


def __getattr__(name: str) -> type[Node]:
    """The class of a node by name, for pickle."""
    if not name[:1].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return node_class(name)


def _inside(self: nnx.Module, run: Callable) -> Any:
    """Return `run()`; libraries that look for the current module find it as `self` of this stack frame."""
    return run()


def at(node: Any, path: str) -> Any:
    """The attribute at `path` below a node, or None."""
    return functools.reduce(lambda child, name: getattr(child, name, None), filter(None, path.split("/")), node)


def draw(rngs: Any) -> Any:
    """A key from an `nnx.Rngs` (None if it has no stream for dropout) or a stream; a key is returned as is."""
    stream = dropout_stream(rngs)
    return stream() if isinstance(stream, nnx.RngStream) else stream


def dropout_stream(rngs: Any) -> Any:
    """The stream of an `nnx.Rngs` that dropout draws from; a stream or a key is returned as is."""
    if not isinstance(rngs, nnx.Rngs):
        return rngs
    return rngs.dropout if "dropout" in rngs or "default" in rngs else None


def leaves_of(node: Any) -> dict[str, Any]:
    """The attributes of a node that belong to the variable tree; for an `nnx.Linear`, its leaves."""
    names = node._site.names if isinstance(node, Node) else ("kernel", "bias")
    held = vars(node)
    return {name: held[name] for name in held if name in names and (isinstance(node, Node) or held[name] is not None)}


def split(
    node: Any, is_open: Callable[[str, Any], bool] | None = None
) -> tuple[dict, dict[str, Callable], dict[str, Node]]:
    """The variables below a node, the modules that replace kernels, by path, and the batch norms, by path.

    `is_open(path, module)` decides whether a module's leaves are read; by default, if a kernel would read them.
    """
    flat: dict[str, Array] = {}
    modules: dict[str, Callable] = {}
    norms: dict[str, Node] = {}
    is_open = is_open or functools.partial(_runs_as_leaves, node)

    def walk(node: Any, prefix: str) -> None:
        if "use_running_average" in vars(node):
            norms[prefix[:-1]] = node
        names = leaves_of(node)
        for name, child in names.items():
            path = prefix + name
            if isinstance(child, nnx.Variable):
                collection = "batch_stats" if isinstance(child, nnx.BatchStat) else "params"
                flat[f"{collection}/{path}"] = child.get_value()
            elif hasattr(child, "shape"):  # the result of quantising a parameter
                flat[f"params/{path}"] = jax.tree.map(_value_of, child, is_leaf=_is_variable)
            elif is_open(path, child):
                walk(child, path + "/")
            elif callable(child):
                modules[path] = child
            else:
                raise TypeError(f"{path} is {child!r}, expected a module or an nnx.Param")
        for name, child in vars(node).items():
            if name not in names and name[0] != "_" and isinstance(child, nnx.Module) and callable(child):
                modules[prefix + name] = child

    walk(node, "")
    return core.unflatten(flat), modules, norms


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def _value_of(value: Any) -> Any:
    return value.get_value() if _is_variable(value) else value


def _runs_as_leaves(root: Node, path: str, child: Any) -> bool:
    """Whether a kernel reads the leaves of the module at `path`; a module that a user put there is called instead."""
    if type(child) is nnx.Linear:
        return _is_as_specified(child, root._site.target.spec()["params"], root._site.join(path))
    return isinstance(child, Node) and bool(child._site.path)


def _is_as_specified(linear: nnx.Linear, spec: Mapping, path: str) -> bool:
    """Whether a linear layer has the leaves of the kernel at `path` and default options."""
    leaves = functools.reduce(lambda tree, name: tree.get(name, {}), path.split("/"), spec)
    shapes = {name: variable.shape for name, variable in leaves_of(linear).items()}
    plain = (linear.dtype, linear.precision, linear.dot_general) == (None, None, jax.lax.dot_general)
    return plain and shapes == {name: leaf.shape for name, leaf in leaves.items() if isinstance(leaf, core.Leaf)}


def _callable_nodes(node: Any, prefix: str = "") -> dict[str, Callable]:
    """The topmost nodes and linear layers below a node that can be called with one input, by path."""
    found: dict[str, Callable] = {}
    for name, child in leaves_of(node).items():
        if isinstance(child, nnx.Linear) or (isinstance(child, Node) and child._site.is_simple):
            found[prefix + name] = child
        elif isinstance(child, Node):
            found |= _callable_nodes(child, f"{prefix}{name}/")
    return found


def merged(lora: Any) -> dict[str, jnp.ndarray] | None:
    """The leaves of an `nnx.LoRALinear`, or an `nnx.LoRA` around a layer, merged into one linear layer.

    None for any other module.
    """
    if type(lora) is nnx.LoRALinear:
        leaves, lora = leaves_of(lora), lora.lora
    elif type(lora) is nnx.LoRA and type(lora.base_module) in (nnx.LoRALinear, nnx.LoRA):
        leaves = merged(lora.base_module) or {}
    elif type(lora) is nnx.LoRA and isinstance(lora.base_module, nnx.Linear | Node):
        leaves = leaves_of(lora.base_module)
    else:
        return None
    arrays = {name: leaf[...] if isinstance(leaf, nnx.Variable) else leaf for name, leaf in leaves.items()}
    kernel = arrays.get("kernel")
    if kernel is None or lora.lora_a is None or kernel.shape[:-2] not in ((), (1, 1)):
        return None
    if lora.lora_a.shape[0] * lora.lora_b.shape[-1] != kernel.size:
        return None
    change = jnp.matmul(lora.lora_a[...], lora.lora_b[...], precision="highest")
    return {**arrays, "kernel": (kernel + change.reshape(kernel.shape)).astype(kernel.dtype)}
