"""The Equinox modules that hold a model's or a kernel's leaves."""

from collections.abc import Hashable, Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

import flaim_core as core
from flaim.adapters._common import Layer
from flaim.adapters._sites import Site
from flaim.adapters.eqx._nodes import Node, run, split
from flaim.model import Model


class KernelModule(Node):
    """Runs `target`, a `Model` or a layer, on the leaves below it.

    A module that replaced a node is called on each sample of the batch instead of the node's kernel. If it takes `key`,
    it gets a separate key for each sample and path. Equinox's convolutions, pools and group norms get the channels
    first; its linear layers are called on each token.

    Attributes:
        inference: Set by `eqx.nn.inference_mode`.
        batch_stats: Index of the running statistics in the state; None if there are none.
        axis_name: Axis of the `jax.vmap` over single samples; batch statistics are taken over the whole axis.
    """

    inference: bool
    batch_stats: eqx.nn.StateIndex | None
    axis_name: Hashable = eqx.field(static=True)
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
        params = variables.get("params", {})
        super().__init__(Site(target, "", frozenset(params)), params)
        stats = variables.get("batch_stats")
        self.inference = inference
        self.batch_stats = eqx.nn.StateIndex(stats) if stats else None
        self.axis_name = axis_name
        self._sample_rank = sample_rank

    @property
    def _target(self) -> Model | Layer:
        return self._site.target

    def run(
        self,
        x: Float[Array, "..."],
        state: eqx.nn.State | None,
        key: PRNGKeyArray | None,
        *,
        use_running_average: bool | None = None,
        axis_name: Hashable | None = None,
        capture: str | None = None,
        **options: Any,
    ) -> tuple[core.Output, eqx.nn.State | None]:
        """Value and intermediates for one sample or for a batch, and the new state."""
        variables, modules = split(self)
        if self.batch_stats is not None:
            if state is None:
                raise ValueError(f"{type(self).__name__} has running statistics: call it with its state")
            variables["batch_stats"] = state.get(self.batch_stats)
        single = x.ndim == self._sample_rank
        try:
            output = run(
                self._target,
                variables,
                modules,
                x,
                options,
                single=single,
                training=not self.inference,
                use_running_average=use_running_average,
                key=key,
                axis_name=self.axis_name if axis_name is None and single else axis_name,
                capture=capture,
            )
        except NameError as error:
            if not single or self.inference:
                raise
            raise NameError(
                f"in training, batch statistics of single samples are taken over a mapped axis: call the module under "
                f"jax.vmap(..., axis_name={self.axis_name!r}), on a whole batch, or in eqx.nn.inference_mode"
            ) from error
        frozen = self.inference if use_running_average is None else use_running_average
        if state is not None and self.batch_stats is not None and not frozen:
            state = state.set(self.batch_stats, output.batch_stats)
        return output, state


class ImageModel(KernelModule):
    """A framework-free model as an Equinox module."""

    def __init__(self, model: Model, variables: Mapping, *, inference: bool = True, axis_name: Hashable = "batch"):
        super().__init__(model, variables, sample_rank=3, inference=inference, axis_name=axis_name)

    def __call__(  # type: ignore[override]
        self,
        x: Float[Array, "..."],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
        use_running_average: bool | None = None,
        axis_name: Hashable | None = None,
        capture: str | None = None,
    ) -> tuple[Any, Any]:
        """Logits of one image (height, width, channels) or of a batch, and the new state.

        `key` is for dropout. With `use_running_average=True`, training uses running statistics and doesn't update them.
        `axis_name` is a mapped axis whose members form one batch; the default is the module's own for single images
        and none for batches. With `capture`, a pattern such as `"stage_*"`, the first result is
        `(logits, intermediates)`.
        """
        output, new_state = self.run(
            x, state, key, use_running_average=use_running_average, axis_name=axis_name, capture=capture
        )
        return (output.value if capture is None else (output.value, output.intermediates)), new_state


def wrap(model: Model, variables: dict, *, axis_name: Hashable = "batch") -> tuple[ImageModel, eqx.nn.State]:
    """A framework-free model and its variables as an Equinox module in inference mode, and its state."""
    return eqx.nn.make_with_state(ImageModel)(model, variables, axis_name=axis_name)


def to_variables(model: KernelModule, state: eqx.nn.State) -> dict:
    """The canonical variables of a module and its state.

    Raises:
        ValueError: A node was replaced by a module that is not one of flaim's.
    """
    variables, modules = split(model, every=True)
    if modules:
        foreign = "\n".join(f"{path}: {type(module).__name__}" for path, module in modules.items())
        raise ValueError(f"only flaim's modules have canonical variables; there are also\n{foreign}")
    if model.batch_stats is not None:
        variables["batch_stats"] = state.get(model.batch_stats)
    return variables
