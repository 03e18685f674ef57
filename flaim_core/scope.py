"""Kernels and scopes: one definition of a layer serves `spec`, `init`, `apply` and plain inference.

A kernel is a function whose first argument is a `Scope`. A scope is an immutable view of one node of a variable tree

    {"params": {"conv1": {"kernel": ...}}, "batch_stats": {"bn1": {"mean": ..., "var": ...}}}

and knows the node's path. What happens when a kernel reads a leaf or calls another kernel depends on the scope's
reading: `run.Run` computes with arrays, `readings.Declare` collects the leaves that a kernel declares,
`readings.Record` the calls of kernels.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flaim_core.leaf import Init
from flaim_core.run import Options, Reading, Replacement, Run
from flaim_core.tree import Path

PARAMS, STATS = "params", "batch_stats"

P = ParamSpec("P")
R = TypeVar("R")


class MissingKeyError(ValueError):
    """A kernel needs a random key, and none was given."""


class Scope:
    """An immutable view of one node of a variable tree; the first argument of every kernel."""

    __slots__ = ("_params", "_reading", "_stats", "path")

    def __init__(self, reading: Reading, path: Path = (), params: Mapping | None = None, stats: Mapping | None = None):
        self._reading, self.path = reading, path
        self._params, self._stats = params or {}, stats or {}

    def __getitem__(self, name: str | int) -> "Scope":
        """The child `name`, which need not have leaves."""
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
        """The option `training` of `apply`: whether dropout drops."""
        return self._reading.options.training

    @property
    def computes(self) -> bool:
        """False if a kernel only has to declare its leaves. Its value then matters for shape and dtype only."""
        return self._reading.computes

    @property
    def use_running_average(self) -> bool:
        """Whether batch norm uses the running statistics and does not update them; by default `not training`."""
        options = self._reading.options
        return not options.training if options.use_running_average is None else options.use_running_average

    @property
    def axis_name(self) -> Any:
        """The mapped axis over which batch norm averages its statistics, or None."""
        return self._reading.options.axis_name

    def param(self, name: str, shape: Sequence[int], init: Init, *, layout: str = "", dtype: Any = None) -> Array:
        """The parameter `name`, cast to the compute dtype or to `dtype`."""
        path = (PARAMS, *self.path, name)
        dtype = dtype or self._reading.options.dtype
        return self._reading.read(self._params, path, tuple(shape), init, layout, dtype)

    def stat(self, name: str, shape: Sequence[int], init: Init) -> Array:
        """The running statistic `name`, as stored."""
        return self._reading.read(self._stats, (STATS, *self.path, name), tuple(shape), init, "", None)

    def update(self, name: str, value: Array) -> None:
        """Return a new value of the running statistic `name` to the caller of `apply`."""
        self._reading.collected.updates[(*self.path, name)] = value

    def captures(self, name: str) -> bool:
        """Whether to compute and capture `name`, an intermediate at extra cost: a pattern other than `"*"` matches."""
        pattern = self._reading.options.capture
        return pattern not in (None, "*") and self._reading.captures((*self.path, name))

    def capture(self, name: str, value: Any) -> None:
        """Return an intermediate to the caller of `apply`, if its `capture` pattern matches the path."""
        self._reading.capture((*self.path, name), value)

    def rng(self, name: str) -> PRNGKeyArray:
        """The random key of this path and `name`: the same in every framework and under every transformation.

        Raises MissingKeyError if `apply` got no `rng`, ValueError if the same key is drawn twice.
        """
        path = (*self.path, name)
        if self._reading.options.key is None:
            raise MissingKeyError(f"{'/'.join(path)} draws random numbers in training: pass rng=jax.random.key(...)")
        if path in self._reading.collected.keys:
            raise ValueError(f"{'/'.join(path)}: this random key was drawn before; give the second draw another name")
        return self._reading.key_at(path)

    def under(self, reading: Reading, params: Mapping | None = None, stats: Mapping | None = None) -> "Scope":
        """The same node under another reading, with these variables."""
        return Scope(reading, self.path, params, stats)

    def replacing(self, functions: Mapping[str, Callable]) -> "Scope":
        """The same node, where pure functions `(scope, x)` replace the kernels at these paths."""
        replaced = {tuple(path.split("/")): Replacement(function, False) for path, function in functions.items()}
        reading = self._reading.with_options(replaced={**replaced, **self._reading.options.replaced})
        return self.under(reading, *self.variables)

    def call(self, block: Callable, x: Any, *args, **kwargs) -> Any:
        """Run `block(self, x, *args, **kwargs)` as a unit of rematerialisation.

        Under `apply(remat=True)` only its inputs are residuals. The block may be traced as a pure function, in which
        running statistics, random keys and captured intermediates are explicit inputs and outputs.
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
        """Run `n` equal blocks one after the other: `x = block(self[i], x, **kwargs)` for `i` from 0 to `n - 1`.

        Under `apply(scan=True)` this is one `jax.lax.scan`, which compiles the block once.

        Args:
            each: Keyword arguments that differ between blocks: a sequence of `n` numbers each, such as rates.
            after: `after(i, x)` is called with the output of block `i`, if intermediates are captured.
            kwargs: Keyword arguments of all blocks.
        """
        return self._reading.stack(block, self, x, n, dict(each or {}), after, kwargs)


def kernel(fn: Callable[Concatenate[Scope, P], R]) -> Callable[Concatenate[Scope | Mapping, P], R]:
    """A decorator that makes `fn(scope, x, ...)` a kernel.

    A kernel can also be called with a nested dict of parameters (or variables) in place of the scope. It then runs
    inference, in the dtype of the first floating array among its arguments.
    """

    @functools.wraps(fn)
    def wrapper(scope: Scope | Mapping, *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(scope, Scope):
            scope = Scope(Run(Options(dtype=float_dtype((args, kwargs)))), (), *collections_of(scope))
        return scope._reading.kernel(fn, scope, args, kwargs)

    vars(wrapper)["is_kernel"] = True  # for code that lists all kernels
    return wrapper


def collections_of(variables: Mapping) -> tuple[Mapping, Mapping]:
    """The parameters and running statistics in `variables`, which may also be a tree of parameters alone."""
    if set(variables) <= {PARAMS, STATS}:
        return variables.get(PARAMS, {}), variables.get(STATS, {})
    return variables, {}


def float_dtype(tree: Any) -> Any:
    """The dtype of the first floating array in `tree`, float32 if there is none."""
    for value in jax.tree.leaves(tree):
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
            return value.dtype
    return jnp.dtype(jnp.float32)
