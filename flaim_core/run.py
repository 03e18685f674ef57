"""`Run`, the reading that computes: its options, what it collects, and how it runs blocks and stacks of blocks."""

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
from flaim_core.lowering import for_single_cpu
from flaim_core.remat import Policy, Remat, save_nothing, save_products_and_statistics
from flaim_core.tree import Path

Interceptor = Callable[[Path, Callable[[], Any]], Any]
_interceptor: ContextVar[Interceptor | None] = ContextVar("interceptor", default=None)


@contextlib.contextmanager
def intercept_kernels(interceptor: Interceptor) -> Iterator[None]:
    """A `with` block in which each kernel is called as `interceptor(path, call)`, which has to return `call()`."""
    token = _interceptor.set(interceptor)
    try:
        yield
    finally:
        _interceptor.reset(token)


class Replacement(NamedTuple):
    """A function `(scope, x)` that replaces a kernel.

    `has_effects`: it may have side effects on Python objects, so no block that contains it is run as a pure function.
    """

    function: Callable
    has_effects: bool


@dataclass(frozen=True)
class Options:
    """The options of a reading; most are those of `apply`.

    Attributes:
        key: The random key of the node at `root`, or a function that computes it on demand.
        root: Path of the block that is run as a pure function; () outside of blocks.
        replaced: Replacements of kernels, by path.
        in_block: Whether a block is being run as a pure function. Blocks in it are then called directly.
    """

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
    """What a reading collects besides the kernel's value; all by path.

    Attributes:
        updates: New running statistics.
        intermediates: Captured intermediates.
        keys: Random keys that were derived so far.
        called: Paths of replacements that were called.
    """

    updates: dict[Path, Array] = field(default_factory=dict)
    intermediates: dict[Path, Any] = field(default_factory=dict)
    keys: dict[Path, PRNGKeyArray] = field(default_factory=dict)
    called: set[Path] = field(default_factory=set)


class Reading:
    """A reading of a kernel: what happens when the kernel uses its `Scope`. The base class is what all readings share.

    Attributes:
        computes: False if only leaves and shapes matter, so that a kernel may skip computing its value.
    """

    computes = True

    def __init__(self, options: Options):
        self.options = options
        self.collected = Collected()

    def with_options(self, **changes: Any) -> "Reading":
        """A copy with other options, which shares what is collected."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), options=replace(self.options, **changes))
        return other

    def read(self, node: Mapping, path: Path, shape: tuple[int, ...], init: Init, layout: str, dtype: Any) -> Array:
        """The leaf at `path`; `node` is the dict that has it."""
        raise TypeError(f"{type(self).__name__} reads no leaves")

    def kernel(self, fn: Callable, scope: Any, args: tuple, kwargs: dict) -> Any:
        """Call the kernel `fn`, or its replacement."""
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
        """Call `n` equal blocks one after the other; `each` and `after` as in `Scope.repeat`."""
        for i in range(n):
            x = self.block(block, scope[i], x, (), {**{name: values[i] for name, values in each.items()}, **kwargs})
            if after is not None:
                after(i, x)
        return x

    def capture(self, path: Path, value: Any) -> None:
        """Collect an intermediate if the pattern `capture` matches its path."""
        if self.captures(path):
            self.collected.intermediates[path] = value

    def captures(self, path: Path) -> bool:
        """Whether the pattern `capture` matches this path."""
        return self.options.capture is not None and fnmatchcase("/".join(path), self.options.capture)

    def key_at(self, path: Path) -> PRNGKeyArray:
        """The random key of a node: its parent's key, folded with a hash of its name."""
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
        """Call the kernel `fn`, through the interceptor if there is one."""
        interceptor = _interceptor.get()
        if interceptor is None:
            return super().call(fn, scope, args, kwargs)
        return interceptor(scope.path, functools.partial(super().call, fn, scope, args, kwargs))

    def read(self, node, path, shape, init, layout, dtype):
        """The leaf, cast to `dtype`. Raises LeafError if it is missing or misshapen."""
        value = node.get(path[-1])
        if value is None or isinstance(value, Mapping):
            raise LeafError(f"{'/'.join(path)}: missing, expected shape {shape}")
        if value.shape != shape:
            raise LeafError(f"{'/'.join(path)}: found shape {value.shape}, expected {shape}")
        return jnp.asarray(value, dtype)

    def block(self, block, scope, x, args, kwargs):
        """Call a block: with `flaim_core.remat` under jit on a single CPU, with `jax.checkpoint` if `remat` is set."""
        options = self.options
        if options.in_block or self._with_effects(scope.path):
            return block(scope, x, *args, **kwargs)
        inputs = jax.tree.leaves(x)
        if any(map(_jax.is_under_jit, inputs)) and for_single_cpu(*inputs):
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
        """Call equal blocks, as one `jax.lax.scan` if `scan` is set."""
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

        # An option that is equal in all blocks stays a Python number, so that a rate of 0 draws no mask.
        kwargs = {**kwargs, **{name: values[0] for name, values in each.items() if len(set(values)) == 1}}
        inputs = (
            stacked([node.variables for node in nodes]),
            None if options.key is None else jnp.stack([self.key_at(node.path) for node in nodes]),
            {name: jnp.asarray(values, jnp.float32) for name, values in each.items() if name not in kwargs},
        )

        def body(x, inputs):
            (params, stats), key, others = inputs
            pure: Callable = functools.partial(self._pure, block, nodes[0], args=(), kwargs={**others, **kwargs})
            if (options.remat or options.training) and for_single_cpu(*jax.tree.leaves(x)):
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
        """Which results blocks save for the backward pass."""
        return save_nothing if self.options.remat else save_products_and_statistics

    def _with_effects(self, path: Path) -> Sequence[Path]:
        """Paths at or below this one of replacements with side effects."""
        replaced = self.options.replaced.items()
        return [at for at, replacement in replaced if replacement.has_effects and at[: len(path)] == path]

    def _shared(self, block: Callable, scope: Any, args: tuple, kwargs: Mapping) -> Remat:
        """`block` as a pure function under remat. Equal blocks get the same function, which is traced once for all."""
        shared = Remat(self._keyed(block, scope, args, kwargs), self._policy)
        if self.options.capture is not None or self.options.replaced:  # then the result depends on the path
            return shared
        options, structure = jax.tree.flatten((args, kwargs))
        try:
            return self._blocks.setdefault((block, structure, tuple(options)), shared)
        except TypeError:  # an unhashable option
            return shared

    def _keyed(self, block: Callable, scope: Any, args: tuple, kwargs: Mapping) -> Callable:
        """`block` as a pure function `(params, stats, key, names, x)`, for `_pure`.

        `key` is the root's, and `names` are the hashes of the names on the path from there. The block's own key is
        folded from both when it is first used, so that equal blocks at different paths are one traced function.
        """

        def pure(params, stats, key, names, x):
            own_key = None if key is None else functools.cache(lambda: functools.reduce(jax.random.fold_in, names, key))
            return self._pure(block, scope, params, stats, own_key, x, args=args, kwargs=kwargs)

        return pure

    def _pure(self, block, scope, params, stats, key, x, *, args, kwargs):
        """Run `block` as a pure function of its variables, random key and `x`.

        Returns:
            The value, new running statistics and intermediates; these two by path relative to the block.
        """
        inner = Run(replace(self.options, key=key, root=scope.path, in_block=True))
        value = block(scope.under(inner, params, stats), x, *args, **kwargs)
        self.collected.called |= inner.collected.called
        depth, collected = len(scope.path), inner.collected
        updates, intermediates = (
            {path[depth:]: v for path, v in found.items()} for found in (collected.updates, collected.intermediates)
        )
        return value, updates, intermediates
