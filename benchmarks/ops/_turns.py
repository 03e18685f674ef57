"""Times several ways of computing the same thing, in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

_ROUNDS = 5


def array(*shape: int, seed: int = 0) -> jax.Array:
    """Normally distributed numbers, float32."""
    return jax.device_put(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def milliseconds(ways: Mapping[str, Callable], *args: Any, seconds: float = 0.5) -> dict[str, float]:
    """The median time of each compiled way, in turns of `seconds / 5`, after a check that all results agree."""
    compiled = {name: jax.jit(way) for name, way in ways.items()}
    results = [jax.block_until_ready(call(*args)) for call in compiled.values()]
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(other)):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * float(np.abs(a).max()))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, call in compiled.items():
            until = time.perf_counter() + seconds / _ROUNDS
            while time.perf_counter() < until or not times[name]:
                started = time.perf_counter()
                jax.block_until_ready(call(*args))
                times[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of milliseconds: a row for each case, a column for each way."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table(title=f"{title}: median ms", title_justify="left")
    table.add_column("case", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for case, row in rows.items():
        table.add_row(case, *(f"{row[name]:.2f}" if name in row else "" for name in names))
    Console().print(table)
