"""`python -m benchmarks.overhead`: what a call of each adapter's model costs on top of a jitted pure function.

One image of 32x32 pixels, so that the model itself takes little time; the contenders take turns in one process. Prints
a table of milliseconds.
"""

import importlib
import statistics
import time
from typing import Annotated

import jax
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import ADAPTER_CALLS
from flaim import models


def _nnx_split(adapter, model, variables):
    """An NNX module taken apart once, instead of at each call by `nnx.jit`."""
    from flax import nnx

    graph, state = nnx.split(adapter.wrap(model, variables))
    call = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return lambda x: call(state, x)


def _eqx_partition(adapter, model, variables):
    """An Equinox module and its state taken apart once, instead of at each call by `eqx.filter_jit`."""
    import equinox as eqx

    arrays, rest = eqx.partition(adapter.wrap(model, variables), eqx.is_array)

    @jax.jit
    def call(arrays, x):
        module, state = eqx.combine(arrays, rest)
        return module(x, state)[0]

    return lambda x: call(arrays, x)


# By name: the adapter, and the function that makes the call from a model and its variables.
CALLS = {
    **{name: (name, make) for name, make in ADAPTER_CALLS.items()},
    "nnx, split once": ("nnx", _nnx_split),
    "eqx, partitioned once": ("eqx", _eqx_partition),
}


def measure(architecture: str, repeats: int) -> dict[str, float]:
    """The median seconds of a call, by name in `CALLS` and for the bare `jax.jit`."""
    model = models.create(architecture, input_size=32)
    variables = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (1, *model.input_size, 3))
    bare = jax.jit(lambda variables, x: model.apply(variables, x).value)
    calls = {"jax.jit": lambda x: bare(variables, x)}
    for name, (adapter, make) in CALLS.items():
        calls[name] = make(importlib.import_module(f"flaim.adapters.{adapter}"), model, variables)
    times = {contender: [] for contender in calls}
    for repeat in range(repeats + 3):
        for contender, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call(x))
            if repeat >= 3:
                times[contender].append(time.perf_counter() - started)
    return {contender: statistics.median(taken) for contender, taken in times.items()}


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODELS]...", help="Architectures.")] = None,
    repeats: Annotated[int, typer.Option(help="Calls of each contender.")] = 300,
) -> None:
    """Time one call of each adapter's model beside a bare jax.jit of the pure function."""
    table = Table(title="One image of 32x32: milliseconds a call, and beyond jax.jit")
    names = names or ["resnet50", "efficientnet_b0", "vit_small_patch16_224"]
    table.add_column("model")
    table.add_column("arrays", justify="right")
    for contender in ("jax.jit", *CALLS):
        table.add_column(contender, justify="right")
    for name in names:
        medians = measure(name, repeats)
        bare = medians.pop("jax.jit")
        arrays = len(jax.tree.leaves(models.create(name).spec()))
        more = [f"{m * 1e3:.2f} ({(m - bare) * 1e3:+.2f})" for m in medians.values()]
        table.add_row(name, str(arrays), f"{bare * 1e3:.2f}", *more)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
