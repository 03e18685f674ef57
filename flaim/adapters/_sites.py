"""The kernel at each node of a model: its recorded call gives the node its class name and can run by itself."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

import flaim_core as core
from flaim._fused_norm import fused_batch_norm
from flaim.adapters._common import Layer, class_name
from flaim.model import Model

_BATCH_NORM = inspect.unwrap(core.batch_norm)
_DROPPING = {inspect.unwrap(core.dropout), inspect.unwrap(core.drop_path)}


class Record:
    """The kernel calls that `target` makes.

    Attributes:
        calls: The outermost call at each path; "" is the path of the whole target.
        kinds: Class names of nodes, by path; a node is named after its kernel.
        norms: Paths of batch norms.
        modal: Paths where something behaves differently in training, there or below.
    """

    def __init__(self, target: Model | Layer):
        whole = target.replace(fused=False) if isinstance(target, Model) else target
        inputs = (whole.image(),) if isinstance(whole, Model) else (whole.x, dict(whole.arrays))
        calls = core.calls(whole._call, *inputs)
        self.calls = {call.path: call for call in calls}
        # If a kernel passes its input on to another kernel at the same path, the node is named after the inner one.
        inner = {call.path: call.function for call in reversed(calls) if call.x is self.calls[call.path].x}
        if isinstance(target, Model) and target.fused:
            inner |= dict.fromkeys(target.fusible_norms(), fused_batch_norm)
        self.kinds = {path: class_name(re.sub(r"\W", "", function.__name__)) for path, function in inner.items()}
        self.norms = {path for path, function in inner.items() if function is _BATCH_NORM}
        self.modal = set()
        for call in calls:
            if _is_modal(call):
                names = call.path.split("/")
                self.modal |= {"/".join(names[:n]) for n in range(len(names) + 1)}


def _is_modal(call: core.Call) -> bool:
    """Whether a kernel may behave differently in training; kernels from outside flaim_core are assumed to."""
    if call.function in _DROPPING:
        return bool({"rate": 0, **dict(zip(["rate"], call.args)), **call.options}["rate"] != 0)
    return call.function is _BATCH_NORM or not call.function.__module__.startswith("flaim_core.")


@functools.lru_cache(maxsize=256)
def record_of(target: Model | Layer) -> Record:
    """The record of a model or a layer, made once."""
    return Record(target)


class Site:
    """The place of a node in `target`, a model or a layer; `names` are its leaves and child nodes.

    Static data of a node, so it hashes and compares quickly.
    """

    __slots__ = ("_record", "names", "path", "target")

    def __init__(self, target: Model | Layer, path: str = "", names: frozenset[str] = frozenset()):
        self.target, self.path, self.names = target, path, names
        self._record: Record | None = None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Site):
            return NotImplemented
        return (self.path, self.names, self.target) == (other.path, other.names, other.target)

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple:
        return Site, (self.target, self.path, self.names)

    def __repr__(self) -> str:
        return f"Site({self.path!r})"

    @property
    def record(self) -> Record:
        """The record of `target`."""
        if self._record is None:
            self._record = record_of(self.target)
        return self._record

    @property
    def call(self) -> core.Call | None:
        """The call of the kernel that runs here, or None."""
        return self.record.calls.get(self.path)

    @property
    def is_simple(self) -> bool:
        """Whether a kernel runs here whose only array input is `x`."""
        return self.call is not None and not any(map(_is_shape, jax.tree.leaves((self.call.args, self.call.options))))

    @property
    def kind(self) -> str:
        """The class name of the node: after its kernel; "List" or "Group" if it has none."""
        numbered = self.names and all(name.isdigit() for name in self.names)
        return self.record.kinds.get(self.path, "List" if numbered else "Group")

    @property
    def name(self) -> str:
        """What error messages call this place."""
        return self.path or getattr(self.target, "name", None) or self.kind

    @property
    def has_norms(self) -> bool:
        """Whether batch norm runs here or below."""
        return any(f"{norm}/".startswith(f"{self.path}/") for norm in self.record.norms)

    @property
    def parts(self) -> tuple[str, ...]:
        """The path as a tuple of names."""
        return tuple(filter(None, self.path.split("/")))

    def join(self, name: str) -> str:
        """The path of the child `name`."""
        return f"{self.path}/{name}" if self.path else name

    def below(self, name: str, names: Any) -> "Site":
        """The site of the child node `name`."""
        site = Site(self.target, self.join(name), frozenset(names))
        site._record = self._record
        return site

    def of(self, target: Model | Layer) -> "Site":
        """The same place in another model."""
        return self if target == self.target else Site(target, self.path, self.names)

    def missing(self, name: str) -> str:
        """The error message for a module assigned to `name`, where it replaces no kernel."""
        message = f"{self.name} has no kernel {name!r} that a module could replace"
        path = self.join(name)
        below = sorted(
            {name.removeprefix(path).split("/")[1] for name in self.record.calls if name.startswith(f"{path}/")}
        )
        if below:
            return f"{message}; replace what is below it, one by one: {', '.join(f'{path}/{name}' for name in below)}"
        if not self.path and isinstance(self.target, Model):
            classifier, has_one = self.target.classifier, self.target.classifier in self.record.calls
            message += f"; its classifier is {classifier!r}" if has_one else "; it is without a classifier"
        names = sorted(self.names, key=lambda name: (0, int(name)) if name.isdigit() else (1, name))
        return f"{message}; it has {', '.join(names)}"

    def apply(
        self,
        variables: Mapping,
        x: Any,
        *,
        modules: Mapping[str, Callable],
        rng: PRNGKeyArray | None = None,
        **options: Any,
    ) -> core.Output:
        """Run the recorded call on the variables below this place.

        `options` are those of `core.apply` and arrays of the kernel. Paths in `modules` and in the intermediates start
        at this place; random keys and errors use the paths of the whole model.
        """
        call = self.call
        if call is None:
            below = ", ".join(sorted(self.names))
            raise TypeError(f"no kernel runs at {self.path}, so it cannot be called; what is below it can: {below}")
        of_run = {name: options.pop(name) for name in _OF_RUN & options.keys()}
        parameters = list(inspect.signature(call.function).parameters)
        bound = {**dict(zip(parameters[2:], call.args)), **call.options}
        needed = {name for name, value in bound.items() if any(map(_is_shape, jax.tree.leaves(value)))}
        if missing := sorted(needed - options.keys()):
            raise TypeError(f"{self.path}: the kernel takes {' and '.join(missing)} too, which the model computes")
        bound |= {name: value for name, value in options.items() if name not in needed}
        arrays = {name: options[name] for name in needed}
        names = self.parts

        def run(scope: core.Scope, x: Any, arrays: Mapping) -> Any:
            if isinstance(self.target, Model) and self.target.fused:
                scope = scope.replacing(dict.fromkeys(self.target.fusible_norms(), fused_batch_norm))
            scope = functools.reduce(lambda scope, name: scope[name], names, scope)
            return core.kernel(call.function)(scope, x, **bound, **arrays)

        output = core.apply(
            run,
            {
                collection: functools.reduce(lambda tree, name: {name: tree}, reversed(names), tree)
                for collection, tree in variables.items()
            },
            x,
            arrays,
            rng=rng,
            dtype=getattr(self.target, "dtype", None),
            modules={self.join(path): module for path, module in modules.items()},
            **of_run,
        )
        stats = functools.reduce(lambda tree, name: tree.get(name, {}), names, output.batch_stats)
        skip = len(self.path) + 1 if self.path else 0
        return output._replace(
            batch_stats=stats, intermediates={path[skip:]: value for path, value in output.intermediates.items()}
        )


# Options of `core.apply` that a call of a single node takes.
_OF_RUN = {"training", "use_running_average", "capture", "axis_name"}


def _is_shape(value: Any) -> bool:
    return isinstance(value, jax.ShapeDtypeStruct)
