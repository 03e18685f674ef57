"""How a model runs: in microbatches, and compiled if the caller is not under `jax.jit`."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray

import flaim_core as core
from flaim_core.lowering import is_under_jit, lax_is_patched
from flaim_core.microbatch import apply_in_microbatches, inference_microbatches

if TYPE_CHECKING:
    from flaim.model import Model

# Number of jitted functions kept, one per model and mode; each holds a compiled program per shape of its inputs.
_KEPT = 64


class Mode(NamedTuple):
    """The arguments of a call that are not arrays."""

    training: bool
    use_running_average: bool
    capture: str | None
    axis_name: Any

    @property
    def updates_statistics(self) -> bool:
        """Whether batch norm updates its running statistics."""
        return not self.use_running_average


def run(
    model: "Model",
    variables: Mapping,
    x: Any,
    rng: PRNGKeyArray | None,
    mode: Mode,
    modules: Mapping[str, Callable] | None,
) -> core.Output:
    """Run `model`; an eager call is compiled, unless jit is off or `modules` or patched operations may have effects."""
    eager = not is_under_jit(*jax.tree.leaves((variables, x, rng)))
    with_effects = modules or lax_is_patched()
    if not eager or with_effects or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return _trace(model, variables, x, rng, mode, modules)
    output = _compiled(model, mode)(variables, x, rng)
    stats = output.batch_stats if mode.updates_statistics else variables.get("batch_stats", {})
    return core.Output(output.value, stats, dict(output.intermediates))


@functools.lru_cache(maxsize=_KEPT)
def _compiled(model: "Model", mode: Mode) -> Callable:
    def call(variables: Mapping, x: Any, rng: PRNGKeyArray | None) -> core.Output:
        output = _trace(model, variables, x, rng, mode, None)
        stats = output.batch_stats if mode.updates_statistics else {}
        return core.Output(output.value, stats, OrderedDict(output.intermediates))  # jit sorts a plain dict

    call.__name__ = model.name
    return jax.jit(call)


def _trace(
    model: "Model",
    variables: Mapping,
    x: Any,
    rng: PRNGKeyArray | None,
    mode: Mode,
    modules: Mapping[str, Callable] | None,
) -> core.Output:
    def apply(x: Any, variables: Mapping, rng: PRNGKeyArray | None) -> core.Output:
        return core.apply(
            model._call,
            variables,
            x,
            training=mode.training,
            use_running_average=mode.use_running_average,
            rng=rng,
            capture=mode.capture,
            axis_name=mode.axis_name,
            dtype=model.dtype,
            remat=model.remat,
            scan=model.scan,
            modules=modules,
        )

    whole = mode.training or mode.updates_statistics or modules
    n = 1 if whole else inference_microbatches(x, jax.tree.leaves(variables))
    if n == 1:
        return apply(x, variables, rng)

    def without_stats(*inputs: Any) -> core.Output:
        return apply(*inputs)._replace(batch_stats={})

    output = apply_in_microbatches(without_stats, x, variables, rng, n=n)
    return output._replace(batch_stats=variables.get("batch_stats", {}))
