"""The Linen module that holds a model's or a kernel's leaves."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from flax.core import unfreeze
from jaxtyping import Array, Float, PRNGKeyArray

from flaim.adapters._common import Layer, asking_for_key, fitted, inside_nodes, zero_output
from flaim.adapters._sites import Site
from flaim.model import Model
from flaim_core.lowering import lax_is_patched


class Node(nn.Module):
    """An empty module for a node of the variable tree, which gives `nn.tabulate` a row named after the kernel."""

    site: Site
    nodes: Mapping[str, Any]

    @nn.compact
    def __call__(self) -> None:
        """Make the nodes below."""
        make_nodes(self.site, self.nodes)


@functools.cache
def _node_class(name: str) -> type[Node]:
    return type(name, (Node,), {"__module__": __name__, "__doc__": Node.__doc__})


class _Inside(nn.Module):
    """The module of a node while its kernel runs."""

    def run(self, kernel: Callable) -> Any:
        """Return `kernel()`."""
        return kernel()


def make_nodes(site: Site, nodes: Mapping[str, Any]) -> None:
    """Make the nodes below `site`."""
    for name, children in nodes.items():
        below = site.below(name, children)
        _node_class(below.kind)(below, children, name=name)()


class KernelModule(nn.Module):
    """Runs `target()`, a `Model` or a layer, on this module's variables."""

    @nn.nowrap
    def target(self) -> Model | Layer:
        """The model or layer that this module runs."""
        raise TypeError(f"{type(self).__name__} says nothing of what it runs")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "..."],
        training: bool = False,
        *,
        use_running_average: bool | None = None,
        axis_name: Any = None,
        **arrays: Any,
    ) -> Any:
        """The value for `x`; `arrays` are a kernel's other inputs, `axis_name` a mapped axis that forms one batch.

        In training, dropout draws from the "dropout" stream, and "batch_stats" must be mutable unless
        `use_running_average=True`. If "intermediates" is mutable, they are sown. Initialisation runs no forward pass
        and returns zeros.
        """
        target = self.target()
        if self.is_initializing():
            target = fitted(target, x, arrays)
            self._initialise(target)
            if not lax_is_patched():
                return zero_output(target, x, **arrays)
            training = False  # libraries that intercept products set up for those of inference
        with asking_for_key('rngs={"dropout": jax.random.key(...)}'), inside_nodes(self._inside):
            output = target.apply(
                to_variables(self.variables),
                x,
                training=training,
                use_running_average=use_running_average,
                axis_name=axis_name,
                rng=self._key("dropout") if training and self.has_rng("dropout") else None,
                capture="*" if self.is_mutable_collection("intermediates") else None,
                **arrays,
            )
        for path, value in output.intermediates.items():
            self.sow("intermediates", path, value)
        frozen = not training if use_running_average is None else use_running_average
        if not frozen:
            for name, value in output.batch_stats.items():
                self.put_variable("batch_stats", name, value)
        return output.value

    @nn.nowrap
    def _initialise(self, target: Model | Layer) -> None:
        """Set initial values if there are none, and make the nodes."""
        if not self.variables:
            for collection, tree in target.init(self._key("params")).items():
                for name, value in tree.items():
                    self.put_variable(collection, name, value)
        make_nodes(Site(target), _nodes(target.spec()["params"]))

    @nn.nowrap
    def _inside(self, path: tuple[str, ...], run: Callable) -> Any:
        """Return `run()`, called in a module at `path` below this one."""
        scope = functools.reduce(lambda scope, name: scope.push(name, reuse=True), path, self.scope)
        return _Inside(parent=scope).run(run)  # type: ignore[arg-type]

    @nn.nowrap
    def _key(self, stream: str) -> PRNGKeyArray:
        """The user's key itself in the outermost module, so that all frameworks draw the same numbers from it."""
        if self.scope is None or self.path or not self.has_rng(stream):
            return self.make_rng(stream)
        return self.scope.rngs[stream].as_jax_rng()


class ImageModel(KernelModule):
    """A framework-free model as a Linen module."""

    model: Model

    @nn.nowrap
    def target(self) -> Model:
        """The framework-free model."""
        return self.model


def wrap(model: Model, variables: dict) -> tuple[ImageModel, dict]:
    """A framework-free model as a Linen module, and its variables, which Linen takes unchanged as collections."""
    return ImageModel(model), variables


def to_variables(variables: Mapping) -> dict:
    """The canonical variables: Linen's collections "params" and, if there are any, "batch_stats"."""
    return {name: unfreeze(variables[name]) for name in ("params", "batch_stats") if variables.get(name)}


def _nodes(tree: Mapping) -> dict:
    return {name: _nodes(child) for name, child in tree.items() if isinstance(child, Mapping)}
