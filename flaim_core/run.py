"""The reading of a kernel that computes: what it is told, what it collects, and how it runs blocks."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from flaim_core import _jax
from flaim_core.leaf import Init, LeafError, stable_hash
from flaim_core.lowering import for_cpu_alone
from flaim_core.remat import Policy, Remat, save_nothing, save_products_and_statistics
from flaim_core.tree import Path

# What a kernel's path and a function that runs the kernel are given to, where somebody wants to be around it.
_around: ContextVar[Callable[[Path, Callable[[], Any]], Any] | None] = ContextVar("around", default=None)


@contextlib.contextmanager
def around_kernels(around: Callable[[Path, Callable[[], Any]], Any]) -> Iterator[None]:
    """Have each kernel that runs meanwhile run by `around(path, run)`, which returns what `run()` does."""
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)


class Replacement(NamedTuple):
    """A function `(scope, x)` in the place of a kernel; one that `has_effects` is run where it stands, uncompiled."""

    function: Callable
    has_effects: bool


@dataclass(frozen=True)
class Options:
    """What a run is told. `key` is that of the node at `root`; `in_block` says that a block runs as a pure function."""

    training: bool = False
    use_running_average: bool | None = None
    dtype: Any = None
    key: PRNGKeyArray | Callable[[], PRNGKeyArray] | None = None
    root: Path = ()
    capture: str | None = None
    remat: bool = False
    scan: bool = False
    axis_name: Any = None
    replaced: Mapping[Path, Replacement] = field(default_factory=dict)
    in_block: bool = False


@dataclass
class Collected:
    """What a run collects on the side: new running statistics, intermediates, keys, replacements that were called."""

    updates: dict[Path, Array] = field(default_factory=dict)
    intermediates: dict[Path, Any] = field(default_factory=dict)
    keys: dict[Path, PRNGKeyArray] = field(default_factory=dict)
    called: set[Path] = field(default_factory=set)


class Reading:
    """One reading of a kernel. The base class has what all readings do alike.

    Where it does not compute, only the leaves and the shapes of what a kernel returns count.
    """

    computes = True

    def __init__(self, options: Options):
        self.options = options
        self.collected = Collected()

    def with_options(self, **changes: Any) -> "Reading":
        """The same reading, told something else; it goes on collecting in the same place."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), options=replace(self.options, **changes))
        return other

    def read(self, node: Mapping, path: Path, shape: tuple[int, ...], init: Init, layout: str, dtype: Any) -> Array:
        """The leaf at `path`, the last name of which is its name in `node`."""
        raise TypeError(f"{type(self).__name__} reads no leaves")

    def kernel(self, fn: Callable, scope: Any, args: tuple, kwargs: dict) -> Any:
        """Call the kernel `fn`, or what replaces it."""
        replacement = self.options.replaced.get(scope.path)
        if replacement is None:
            return self.call(fn, scope, args, kwargs)
        self.collected.called.add(scope.path)
        return replacement.function(scope, args[0])

    def call(self, fn: Callable, scope: Any, args: tuple, kwargs: dict) -> Any:
        """Call the kernel `fn`."""
        with jax.named_scope(fn.__name__):
            return fn(scope, *args, **kwargs)

    def block(self, block: Callable, scope: Any, x: Any, args: tuple, kwargs: dict) -> Any:
        """Call a block."""
        return block(scope, x, *args, **kwargs)

    def stack(
        self, block: Callable, scope: Any, x: Any, n: int, each: dict, after: Callable | None, kwargs: dict
    ) -> Any:
        """Call `n` equal blocks one after the other."""
        for i in range(n):
            x = self.block(block, scope[i], x, (), {**{name: values[i] for name, values in each.items()}, **kwargs})
            if after is not None:
                after(i, x)
        return x

    def capture(self, path: Path, value: Any) -> None:
        """Keep an intermediate where it is asked for."""
        if self.captures(path):
            self.collected.intermediates[path] = value

    def captures(self, path: Path) -> bool:
        """Whether the intermediate at `path` is asked for."""
        return self.options.capture is not None and fnmatchcase("/".join(path), self.options.capture)

    def key_at(self, path: Path) -> PRNGKeyArray:
        """The key of a node: its parent's, folded with a hash of its name."""
        options, keys = self.options, self.collected.keys
        if len(path) == len(options.root):
            assert options.key is not None
            return options.key() if callable(options.key) else options.key
        if path not in keys:
            keys[path] = jax.random.fold_in(self.key_at(path[:-1]), stable_hash(path[-1]))
        return keys[path]


class Run(Reading):
    """Runs a kernel on arrays."""

    def __init__(self, options: Options):
        super().__init__(options)
        self._blocks: dict[tuple, Remat] = {}

    def call(self, fn, scope, args, kwargs):
        """Call the kernel `fn`, in the hands of `around_kernels` where there is one."""
        around = _around.get()
        if around is None:
            return super().call(fn, scope, args, kwargs)
        return around(scope.path, functools.partial(super().call, fn, scope, args, kwargs))

    def read(self, node, path, shape, init, layout, dtype):
        """The leaf, cast to `dtype`; a LeafError names the path of one that is missing or misshapen."""
        value = node.get(path[-1])
        if value is None or isinstance(value, Mapping):
            raise LeafError(f"{'/'.join(path)}: missing, expected shape {shape}")
        if value.shape != shape:
            raise LeafError(f"{'/'.join(path)}: found shape {value.shape}, expected {shape}")
        return jnp.asarray(value, dtype)

    def block(self, block, scope, x, args, kwargs):
        """Call a block; compiled for a CPU by itself, as `flaim_core.remat` has it."""
        options = self.options
        if options.in_block or self._with_effects(scope.path):
            return block(scope, x, *args, **kwargs)
        inputs = jax.tree.leaves(x)
        if any(map(_jax.is_compiled, inputs)) and for_cpu_alone(*inputs):
            pure: Callable = self._shared(block, scope, args, kwargs)
        elif options.remat:
            pure = jax.checkpoint(self._keyed(block, scope, args, kwargs), policy=save_nothing)
        else:
            return block(scope, x, *args, **kwargs)
        names = None
        if options.key is not None:
            names = np.array([stable_hash(name) for name in scope.path[len(options.root) :]], np.uint32)
        value, *others = pure(*scope.variables, options.key, names, x)
        for target, found in zip((self.collected.updates, self.collected.intermediates), others):
            target.update({(*scope.path, *path): v for path, v in found.items()})
        return value

    def stack(self, block, scope, x, n, each, after, kwargs):
        """Call equal blocks, where `scan` asks as one that is compiled once."""
        options = self.options
        after = None if options.capture is None else after
        if not options.scan or n == 1:
            return super().stack(block, scope, x, n, each, after, kwargs)
        nodes = [scope[i] for i in range(n)]
        if replaced := self._with_effects(scope.path):
            raise ValueError(f"{'/'.join(replaced[0])} is replaced by a module of its own: run without scan=True")

        def stacked(trees):
            try:
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
            except ValueError as error:
                raise LeafError(f"{'/'.join(scope.path)}: the blocks to scan over differ: {error}") from error

        # What is the same for every block stays a number: a rate of zero draws no mask.
        kwargs = {**kwargs, **{name: values[0] for name, values in each.items() if len(set(values)) == 1}}
        inputs = (
            stacked([node.variables for node in nodes]),
            None if options.key is None else jnp.stack([self.key_at(node.path) for node in nodes]),
            {name: jnp.asarray(values, jnp.float32) for name, values in each.items() if name not in kwargs},
        )

        def body(x, inputs):
            (params, stats), key, others = inputs
            pure: Callable = functools.partial(self._pure, block, nodes[0], args=(), kwargs={**others, **kwargs})
            if (options.remat or options.training) and for_cpu_alone(*jax.tree.leaves(x)):
                pure = Remat(pure, self._policy)
            elif options.remat:
                pure = jax.checkpoint(pure, policy=save_nothing)
            x, updates, intermediates = pure(params, stats, key, x)
            return x, (updates, intermediates, x if after is not None else None)

        x, (updates, intermediates, values) = jax.lax.scan(body, x, inputs)
        collected = self.collected
        for i in range(n):
            for target, found in ((collected.updates, updates), (collected.intermediates, intermediates)):
                for path, value in found.items():
                    target[(*scope.path, str(i), *path)] = jax.tree.map(lambda v, i=i: v[i], value)
            if after is not None:
                after(i, jax.tree.map(lambda v, i=i: v[i], values))
        return x

    @property
    def _policy(self) -> Policy:
        """What blocks save for their derivative."""
        return save_nothing if self.options.remat else save_products_and_statistics

    def _with_effects(self, path: Path) -> Sequence[Path]:
        """Paths at or below this one that are replaced by something with effects."""
        replaced = self.options.replaced.items()
        return [at for at, replacement in replaced if replacement.has_effects and at[: len(path)] == path]

    def _shared(self, block: Callable, scope: Any, args: tuple, kwargs: Mapping) -> Remat:
        """`block` as a pure function with a derivative of its own, which equal blocks share."""
        shared = Remat(self._keyed(block, scope, args, kwargs), self._policy)
        if self.options.capture is not None or self.options.replaced:  # these depend on the path
            return shared
        options, structure = jax.tree.flatten((args, kwargs))
        try:
            return self._blocks.setdefault((block, structure, tuple(options)), shared)
        except TypeError:  # an option that cannot be hashed
            return shared

    def _keyed(self, block: Callable, scope: Any, args: tuple, kwargs: Mapping) -> Callable:
        """`block` as a pure function whose key is the root's, folded with the hashes of the names that lead to it."""

        def pure(params, stats, key, names, x):
            own_key = None if key is None else functools.cache(lambda: functools.reduce(jax.random.fold_in, names, key))
            return self._pure(block, scope, params, stats, own_key, x, args=args, kwargs=kwargs)

        return pure

    def _pure(self, block, scope, params, stats, key, x, *, args, kwargs):
        """`block` as a pure function of its inputs: value, new statistics and intermediates, by their paths in it."""
        inner = Run(replace(self.options, key=key, root=scope.path, in_block=True))
        value = block(scope.under(inner, params, stats), x, *args, **kwargs)
        self.collected.called |= inner.collected.called
        depth, collected = len(scope.path), inner.collected
        updates, intermediates = (
            {path[depth:]: v for path, v in found.items()} for found in (collected.updates, collected.intermediates)
        )
        return value, updates, intermediates
