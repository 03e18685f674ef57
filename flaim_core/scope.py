"""Kernels and the scope they read their leaves from: one definition serves `spec`, `init`, `apply` and plain inference.

A kernel is a function whose first argument is a `Scope`: an immutable view of one node of a variable tree

    {"params": {"conv1": {"kernel": ...}}, "batch_stats": {"bn1": {"mean": ..., "var": ...}}}

that knows its path. A scope leaves everything else to its reading: `run.Run` computes on arrays, `readings.Declare`
collects the leaves that a kernel declares, `readings.Record` the kernels that it calls.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flaim_core.leaf import Init
from flaim_core.run import Options, Reading, Replacement, Run
from flaim_core.tree import Path

PARAMS, STATS = "params", "batch_stats"


class MissingKeyError(ValueError):
    """A kernel draws random numbers, and there is no key."""


class Scope:
    """An immutable view of one node of a variable tree; the first argument of every kernel."""

    __slots__ = ("_params", "_reading", "_stats", "path")

    def __init__(self, reading: Reading, path: Path = (), params: Mapping | None = None, stats: Mapping | None = None):
        self._reading, self.path = reading, path
        self._params, self._stats = params or {}, stats or {}

    def __getitem__(self, name: str | int) -> "Scope":
        """The child called `name`; it need not have leaves."""
        name = str(name)
        return Scope(self._reading, (*self.path, name), self._params.get(name), self._stats.get(name))

    def __repr__(self) -> str:
        return f"Scope({'/'.join(self.path)!r})"

    @property
    def variables(self) -> tuple[Mapping, Mapping]:
        """The parameters and the running statistics at and below this node."""
        return self._params, self._stats

    @property
    def training(self) -> bool:
        """Whether dropout drops and, unless `apply` says otherwise, batch norm uses the batch's statistics."""
        return self._reading.options.training

    @property
    def computes(self) -> bool:
        """False where a kernel only declares its leaves: its value then counts by shape and dtype alone."""
        return self._reading.computes

    @property
    def use_running_average(self) -> bool:
        """Whether batch norm uses running statistics and leaves them as they are: where not training, unless said."""
        options = self._reading.options
        return not options.training if options.use_running_average is None else options.use_running_average

    @property
    def axis_name(self) -> Any:
        """The mapped axis over which batch statistics are averaged, or None."""
        return self._reading.options.axis_name

    def param(self, name: str, shape: Sequence[int], init: Init, *, layout: str = "", dtype: Any = None) -> Array:
        """The trained leaf `name`, cast to the compute dtype (or `dtype`)."""
        path = (PARAMS, *self.path, name)
        dtype = dtype or self._reading.options.dtype
        return self._reading.read(self._params, path, tuple(shape), init, layout, dtype)

    def stat(self, name: str, shape: Sequence[int], init: Init) -> Array:
        """The running statistic `name`, as stored."""
        return self._reading.read(self._stats, (STATS, *self.path, name), tuple(shape), init, "", None)

    def update(self, name: str, value: Array) -> None:
        """Hand back a new value of the running statistic `name`."""
        self._reading.collected.updates[(*self.path, name)] = value

    def captures(self, name: str) -> bool:
        """Whether a pattern other than `"*"` asks for the intermediate `name`, which is computed on purpose."""
        pattern = self._reading.options.capture
        return pattern not in (None, "*") and self._reading.captures((*self.path, name))

    def capture(self, name: str, value: Any) -> None:
        """Hand back an intermediate, kept only where `apply`'s `capture` pattern matches its path."""
        self._reading.capture((*self.path, name), value)

    def rng(self, name: str) -> PRNGKeyArray:
        """The random key of this path and `name`, the same in every framework and under every transformation."""
        path = (*self.path, name)
        if self._reading.options.key is None:
            raise MissingKeyError(f"{'/'.join(path)} draws random numbers in training: pass rng=jax.random.key(...)")
        if path in self._reading.collected.keys:
            raise ValueError(f"{'/'.join(path)}: this random key was drawn before; give the second draw another name")
        return self._reading.key_at(path)

    def under(self, reading: Reading, params: Mapping | None = None, stats: Mapping | None = None) -> "Scope":
        """The same node in another reading."""
        return Scope(reading, self.path, params, stats)

    def replacing(self, functions: Mapping[str, Callable]) -> "Scope":
        """The same node, with pure functions `(scope, x)` in the place of the kernels at these paths."""
        replaced = {tuple(path.split("/")): Replacement(function, False) for path, function in functions.items()}
        reading = self._reading.with_options(replaced={**replaced, **self._reading.options.replaced})
        return self.under(reading, *self.variables)

    def call(self, block: Callable, x: Any, *args, **kwargs) -> Any:
        """Run `block(self, x, *args, **kwargs)` as a unit of rematerialisation.

        Where `apply(remat=True)` asks, its derivative keeps nothing but its inputs. It may run as a pure function with
        a collector of its own, so that batch norm, dropout and captures inside it pass through the transformation.
        """
        return self._reading.block(block, self, x, args, kwargs)

    def repeat(
        self,
        block: Callable,
        x: Any,
        n: int,
        *,
        each: Mapping[str, Sequence[float]] | None = None,
        after: Callable[[int, Any], None] | None = None,
        **kwargs,
    ) -> Any:
        """Run `n` equal blocks, children "0" to `n - 1`, one after the other: each maps the running value to the next.

        `each` holds keyword arguments that differ from block to block (rates, one number a block). Where intermediates
        are captured, `after(i, x)` is called with the value after block `i`. Where `apply(scan=True)` asks, the blocks
        compile once, as a scan.
        """
        return self._reading.stack(block, self, x, n, dict(each or {}), after, kwargs)


def kernel(fn: Callable) -> Callable:
    """Make `fn(scope, x, ...)` callable on a plain nested dict of parameters (or of variables) too.

    On a mapping it runs pure inference in the dtype of its first array argument.
    """

    @functools.wraps(fn)
    def wrapper(scope, *args, **kwargs):
        if not isinstance(scope, Scope):
            scope = Scope(Run(Options(dtype=float_dtype((args, kwargs)))), (), *collections_of(scope))
        return scope._reading.kernel(fn, scope, args, kwargs)

    vars(wrapper)["is_kernel"] = True  # so that whoever lists kernels can tell them from plain functions
    return wrapper


def collections_of(variables: Mapping) -> tuple[Mapping, Mapping]:
    """Parameters and running statistics of `variables`, which may be a plain tree of parameters."""
    if set(variables) <= {PARAMS, STATS}:
        return variables.get(PARAMS, {}), variables.get(STATS, {})
    return variables, {}


def float_dtype(tree: Any) -> Any:
    """The dtype of the first floating array in `tree`, float32 where there is none."""
    for value in jax.tree.leaves(tree):
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
            return value.dtype
    return jnp.dtype(jnp.float32)
