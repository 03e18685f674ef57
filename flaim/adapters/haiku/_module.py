"""Models as transformed Haiku functions; models and kernels as Haiku modules."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
from jaxtyping import Array, Float, PRNGKeyArray

import flaim_core as core
from flaim.adapters._common import Layer, asking_for_key, fitted, zero_output
from flaim.model import Model


class TransformedModel(hk.TransformedWithState):
    """A transformed function that knows the framework-free `model` it runs."""

    model: Model


def wrap(model: Model, variables: dict) -> tuple[TransformedModel, dict, dict]:
    """A framework-free model as a transformed function, and its variables as parameters and state.

    `apply(params, state, rng, x, is_training=False)` returns the value and the new state. `use_running_average=True`
    means that training uses running statistics and doesn't update them; `axis_name` is a mapped axis whose members form
    one batch. With `capture`, a pattern such as `"stage_*"`, the first result is `(value, intermediates)`. `init` runs
    no forward pass.
    """
    name = _name(model)

    # The same function made of Haiku modules, for Haiku's own tools: without_state, without_apply_rng, tabulate.
    @hk.transform_with_state
    def network(
        x: Float[Array, "..."],
        is_training: bool = False,
        use_running_average: bool | None = None,
        axis_name: Any = None,
        capture: str | None = None,
    ) -> Any:
        options = {"use_running_average": use_running_average, "axis_name": axis_name, "capture": capture}
        return ImageModel(model)(x, is_training, **options)

    @functools.wraps(network.init)
    def init(rng: PRNGKeyArray | int, x: Float[Array, "..."], *_: Any, **__: Any) -> tuple[dict, dict]:
        return _from_variables(fitted(model, x, {}).init(_key(rng)), name)

    @functools.wraps(network.apply)
    def apply(
        params: Mapping | None,
        state: Mapping | None,
        rng: PRNGKeyArray | int | None,
        x: Float[Array, "..."],
        is_training: bool = False,
        use_running_average: bool | None = None,
        axis_name: Any = None,
        capture: str | None = None,
    ) -> tuple[Any, dict]:
        with asking_for_key("a random key to apply"):
            output = model.apply(
                to_variables(params or {}, state or {}),
                x,
                training=is_training,
                use_running_average=use_running_average,
                axis_name=axis_name,
                rng=_key(rng) if is_training else None,
                capture=capture,
            )
        _, state = _from_variables({"batch_stats": output.batch_stats}, name)
        return (output.value if capture is None else (output.value, output.intermediates)), state

    transformed = TransformedModel(init, apply)
    transformed.model = model
    return transformed, *_from_variables(variables, name)


def to_variables(params: Mapping, state: Mapping) -> dict:
    """The canonical variables: parameters and state without the name of the top module."""
    return _to_variables(params, state, depth=1)


def _to_variables(params: Mapping, state: Mapping, depth: int = 0) -> dict:
    """Haiku's two levels as canonical variables, without the first `depth` names of each module."""
    flat = {
        "/".join(filter(None, [collection, *module.split("/")[depth:], name])): value
        for collection, modules in (("params", params), ("batch_stats", state))
        for module, leaves in modules.items()
        for name, value in leaves.items()
    }
    return core.unflatten(flat)


def _from_variables(variables: Mapping, *prefix: str) -> tuple[dict, dict]:
    """Canonical variables as Haiku's: `{"resnet50/layer1/0/conv1": {"kernel": ...}}`, parameters and state."""
    collections: tuple[dict, dict] = ({}, {})
    for modules, name in zip(collections, ("params", "batch_stats")):
        for path, value in core.flatten(variables.get(name, {})).items():
            *parents, leaf = path.split("/")
            modules.setdefault("/".join([*prefix, *parents]), {})[leaf] = value
    return collections


def _name(model: Model) -> str:
    return re.sub(r"\W", "_", model.name)


def _key(rng: Any) -> Any:
    """A key; an integer is a seed, as in Haiku."""
    return jax.random.PRNGKey(rng) if isinstance(rng, int) else rng


class KernelModule(hk.Module):
    """Runs `target`, a `Model` or a layer, on the parameters and the state of this module and those below it."""

    def __init__(self, target: Model | Layer, name: str | None = None):
        super().__init__(name=name)
        self._target = target

    def __call__(
        self,
        x: Float[Array, "..."],
        is_training: bool = False,
        *,
        use_running_average: bool | None = None,
        axis_name: Any = None,
        capture: str | None = None,
        **arrays: Any,
    ) -> Any:
        """The value for `x`, with `capture` also intermediates; `arrays` are a kernel's other inputs.

        With `use_running_average=True`, training uses running statistics and doesn't update them. `axis_name` is a
        mapped axis that forms one batch. Initialisation runs no forward pass and returns zeros and no intermediates.
        """
        target = fitted(self._target, x, arrays)
        params, state = _from_variables(target.init(hk.next_rng_key()) if hk.running_init() else target.spec())
        own_params, own_state = params.pop("", {}), state.pop("", {})
        # This module's own leaves are Haiku parameters. Those below are lifted: names like "0" are not valid in Haiku.
        lifted, updater = hk.transparent_lift_with_state(lambda: (params, state), allow_reuse=True)
        params, state = lifted()
        params[""] = {name: hk.get_parameter(name, *_initial(leaf)) for name, leaf in own_params.items()}
        state[""] = {name: hk.get_state(name, *_initial(leaf)) for name, leaf in own_state.items()}
        if hk.running_init():
            updater.ignore_update()
            value = zero_output(target, x, **arrays)
            return value if capture is None else (value, {})
        with asking_for_key("a random key to apply"):
            output = self._target.apply(
                _to_variables(params, state),
                x,
                training=is_training,
                use_running_average=use_running_average,
                axis_name=axis_name,
                capture=capture,
                rng=hk.maybe_next_rng_key() if is_training else None,
                **arrays,
            )
        _, state = _from_variables({"batch_stats": output.batch_stats})
        for name, value in state.pop("", {}).items():
            hk.set_state(name, value)
        updater.update(state)
        return output.value if capture is None else (output.value, output.intermediates)


def _initial(leaf: Any) -> tuple[Any, Any, Any]:
    """Shape, dtype and initialiser as Haiku takes them; in `apply` it never calls the initialiser."""
    return leaf.shape, leaf.dtype, lambda shape, dtype: leaf


class ImageModel(KernelModule):
    """A framework-free model as a Haiku module, for use inside a transformed function."""

    def __init__(self, model: Model, name: str | None = None):
        super().__init__(model, name or _name(model))
