"""The Equinox modules that hold a model's or a kernel's leaves."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import equinox as eqx
import jax
import wadler_lindig as wl
from jaxtyping import Array, Float, PRNGKeyArray

import flaim_core as core
from flaim.adapters._common import Layer, asking_for_key
from flaim.models import Model


class Node(eqx.Module):
    """A node of the parameter tree: leaves and nodes below are attributes, and `node[0]` is the one called "0"."""

    _children: dict[str, Any]

    def __init__(self, params: Mapping):
        self._children = {name: Node(child) if isinstance(child, Mapping) else child for name, child in params.items()}

    def __getattr__(self, name: str) -> Any:
        children = vars(self).get("_children", {})  # none yet while the module is being made
        if name not in children:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return children[name]

    def __getitem__(self, index: int) -> Any:
        """The node called `index`."""
        if str(index) not in self._children:
            raise IndexError(f"there is no node {index}")
        return self._children[str(index)]

    def __pdoc__(self, **options: Any) -> wl.AbstractDoc:
        """How Equinox prints it: as if the children were fields."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}
        docs = wl.named_objs({**self._children, **fields}.items(), **options)
        begin, end = wl.TextDoc(f"{type(self).__name__}("), wl.TextDoc(")")
        return wl.bracketed(begin=begin, docs=docs, sep=wl.comma, end=end, indent=options["indent"])


class KernelModule(Node):
    """Runs `target`, a `Model` or a layer, on the leaves below it.

    A node that has been replaced by another module is called, on each sample of the batch, in the place of the kernel
    that was there.

    Attributes:
        inference: Set by `eqx.nn.inference_mode`.
        batch_stats: Index of the running statistics in the state; None where there are none.
        axis_name: Of the `jax.vmap` over single samples; batch statistics are those of the whole axis.
    """

    inference: bool
    batch_stats: eqx.nn.StateIndex | None
    axis_name: Hashable = eqx.field(static=True)
    _target: Model | Layer = eqx.field(static=True)
    _sample_rank: int = eqx.field(static=True)

    def __init__(
        self,
        target: Model | Layer,
        variables: Mapping,
        *,
        sample_rank: int,
        inference: bool,
        axis_name: Hashable,
    ):
        super().__init__(variables.get("params", {}))
        stats = variables.get("batch_stats")
        self.inference = inference
        self.batch_stats = eqx.nn.StateIndex(stats) if stats else None
        self.axis_name = axis_name
        self._target = target
        self._sample_rank = sample_rank

    def run(
        self, x: Float[Array, "..."], state: eqx.nn.State | None, key: PRNGKeyArray | None, **options: Any
    ) -> tuple[core.Output, eqx.nn.State | None]:
        """Value and intermediates for one sample or for a batch of them, and the new state."""
        variables, modules = _split(self)
        if self.batch_stats is not None:
            if state is None:
                raise ValueError(f"{type(self).__name__} has running statistics: call it with its state")
            variables["batch_stats"] = state.get(self.batch_stats)
        single = x.ndim == self._sample_rank
        if single:
            x, options = x[None], {name: v[None] if getattr(v, "ndim", 0) else v for name, v in options.items()}
        try:
            with asking_for_key("key=jax.random.key(...)"):
                output = self._target.apply(
                    variables,
                    x,
                    training=not self.inference,
                    rng=None if self.inference else key,
                    axis_name=self.axis_name if single else None,
                    modules={path: jax.vmap(module) for path, module in modules.items()},
                    **options,
                )
        except NameError as error:
            if not single or self.inference:
                raise
            raise NameError(
                f"in training, batch statistics of single samples are taken over a mapped axis: call the module under "
                f"jax.vmap(..., axis_name={self.axis_name!r}), on a whole batch, or in eqx.nn.inference_mode"
            ) from error
        if state is not None and self.batch_stats is not None and not self.inference:
            state = state.set(self.batch_stats, output.batch_stats)
        if single:
            value, intermediates = jax.tree.map(lambda y: y[0], (output.value, output.intermediates))
            output = output._replace(value=value, intermediates=intermediates)
        return output, state


class ImageModel(KernelModule):
    """A framework-free model as an Equinox module."""

    def __init__(self, model: Model, variables: Mapping, *, inference: bool = True, axis_name: Hashable = "batch"):
        super().__init__(model, variables, sample_rank=3, inference=inference, axis_name=axis_name)

    def __call__(
        self,
        x: Float[Array, "..."],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
        capture: str | None = None,
    ) -> tuple[Any, Any]:
        """Logits of one image (height, width, channels) or of a batch, and the new state.

        `key` is for dropout. With `capture`, a pattern such as `"stage_*"`, the first is `(logits, intermediates)`.
        """
        output, new_state = self.run(x, state, key, capture=capture)
        return (output.value if capture is None else (output.value, output.intermediates)), new_state


def wrap(model: Model, variables: dict, *, axis_name: Hashable = "batch") -> tuple[ImageModel, eqx.nn.State]:
    """A framework-free model and its variables as an Equinox module in inference mode, and its state."""
    return eqx.nn.make_with_state(ImageModel)(model, variables, axis_name=axis_name)


def to_variables(model: KernelModule, state: eqx.nn.State) -> dict:
    """The canonical variables of a module and its state.

    Raises:
        ValueError: A node was replaced by a module that is not one of flaim's.
    """
    variables, modules = _split(model, every=True)
    if modules:
        foreign = "\n".join(f"{path}: {type(module).__name__}" for path, module in modules.items())
        raise ValueError(f"only flaim's modules have canonical variables; there are also\n{foreign}")
    if model.batch_stats is not None:
        variables["batch_stats"] = state.get(model.batch_stats)
    return variables


def _split(node: Node, every: bool = False) -> tuple[dict, dict[str, Callable]]:
    """The parameters below a node as a canonical tree, and, by path, the modules that have replaced a node.

    With `every`, leaves of flaim's modules among these are read too.
    """
    params: dict = {}
    modules: dict[str, Callable] = {}
    for name, child in node._children.items():
        if type(child) is Node or (every and isinstance(child, Node)):
            below, foreign = _split(child, every)
            params[name] = below["params"]
            modules |= {f"{name}/{path}": module for path, module in foreign.items()}
        elif callable(child):
            modules[name] = child
        else:
            params[name] = child
    return {"params": params}, modules
