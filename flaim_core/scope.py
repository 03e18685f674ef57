"""Kernels and the scope they read their leaves from: one definition serves `spec`, `init`, `apply` and plain inference.

A kernel is a function whose first argument is a `Scope`: an immutable view of one node of a variable tree

    {"params": {"conv1": {"kernel": ...}}, "batch_stats": {"bn1": {"mean": ..., "var": ...}}}

that knows its path. The same function is run on arrays (`apply`, or a direct call on a plain nested dict) or, with
abstract values, only records what it declares (`spec`, `init`).
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import DynamicJaxprTracer
from jaxtyping import Array, PRNGKeyArray

from flaim_core.leaf import Init, Leaf, LeafError, init_leaves, mismatches, stable_hash
from flaim_core.recompute import Policy, Recomputed, costly, nothing, recomputed
from flaim_core.tree import Path, merge, nest

PARAMS, STATS = "params", "batch_stats"


class MissingKeyError(ValueError):
    """A kernel draws random numbers, and there is no key."""


class Output(NamedTuple):
    """What `apply` returns: the value, every running statistic (new ones in training), and what was captured."""

    value: Any
    batch_stats: dict
    intermediates: dict[str, Any]


class Call(NamedTuple):
    """One call of a kernel: the function under the decorator, its path and options.

    `x` is its input and `args` are the other positional arguments. Of arrays shape and dtype are kept; the same array
    is the same object in every call. `producer` is the index, in the list of all calls, of the innermost one that
    returned the very array that this one was given; None where none did. `uses` counts the calls that were given what
    this one returned.
    """

    function: Callable
    path: str
    options: Mapping[str, Any]
    producer: int | None
    uses: int = 0
    x: Any = None
    args: tuple = ()


@dataclass
class _Run:
    """One reading of a kernel: its options, and the collectors of what the kernel hands back on the side."""

    abstract: bool = False
    training: bool = False
    use_running_average: bool | None = None
    dtype: Any = None
    key: PRNGKeyArray | Callable[[], PRNGKeyArray] | None = None
    root: Path = ()
    capture: str | None = None
    remat: bool = False
    recomputing: bool = False
    scan: bool = False
    axis_name: Any = None
    modules: Mapping[Path, Callable] = field(default_factory=dict)
    substitutes: Mapping[Path, Callable] = field(default_factory=dict)
    replaced: set[Path] = field(default_factory=set)

    leaves: dict[Path, Leaf] = field(default_factory=dict)
    updates: dict[Path, Array] = field(default_factory=dict)
    intermediates: dict[Path, Any] = field(default_factory=dict)
    drawn: dict[Path, PRNGKeyArray] = field(default_factory=dict)
    memo: dict = field(default_factory=dict)
    blocks: dict[tuple, Recomputed] = field(default_factory=dict)
    calls: list[Call] | None = None
    produced: dict[int, tuple[int, Any]] = field(default_factory=dict)
    described: dict[int, tuple[Any, jax.ShapeDtypeStruct]] = field(default_factory=dict)

    def fork(self, **changes) -> "_Run":
        """A run with the same options and collectors of its own."""
        return replace(self, **{"leaves": {}, "updates": {}, "intermediates": {}, "drawn": {}, **changes})

    def key_at(self, path: Path) -> PRNGKeyArray:
        """The key of a node: its parent's, folded with a hash of its name."""
        if len(path) == len(self.root):
            assert self.key is not None
            return self.key() if callable(self.key) else self.key
        if path not in self.drawn:
            self.drawn[path] = jax.random.fold_in(self.key_at(path[:-1]), stable_hash(path[-1]))
        return self.drawn[path]


class Scope:
    """An immutable view of one node of a variable tree; the first argument of every kernel."""

    __slots__ = ("_params", "_run", "_stats", "path")

    def __init__(self, run: _Run, path: Path = (), params: Mapping | None = None, stats: Mapping | None = None):
        self._run, self.path = run, path
        self._params, self._stats = params or {}, stats or {}

    def __getitem__(self, name: str | int) -> "Scope":
        """The child called `name`; it need not have leaves."""
        name = str(name)
        return Scope(self._run, (*self.path, name), self._params.get(name), self._stats.get(name))

    def __repr__(self) -> str:
        return f"Scope({'/'.join(self.path)!r})"

    @property
    def training(self) -> bool:
        """Whether dropout drops and, unless `apply` says otherwise, batch norm uses the batch's statistics."""
        return self._run.training

    @property
    def use_running_average(self) -> bool:
        """Whether batch norm uses running statistics and leaves them as they are: where not training, unless said."""
        return not self._run.training if self._run.use_running_average is None else self._run.use_running_average

    @property
    def axis_name(self) -> Any:
        """The mapped axis over which batch statistics are averaged, or None."""
        return self._run.axis_name

    def param(self, name: str, shape: Sequence[int], init: Init, *, layout: str = "", dtype: Any = None) -> Array:
        """The trained leaf `name`, cast to the compute dtype (or `dtype`)."""
        return self._read(PARAMS, self._params, name, tuple(shape), init, layout, dtype or self._run.dtype)

    def stat(self, name: str, shape: Sequence[int], init: Init) -> Array:
        """The running statistic `name`, as stored."""
        return self._read(STATS, self._stats, name, tuple(shape), init, "", None)

    def _read(self, collection, leaves, name, shape, init, layout, dtype) -> Array:
        path = (collection, *self.path, name)
        if self._run.abstract:
            leaf = Leaf(shape, init, layout)
            if self._run.leaves.setdefault(path, leaf) != leaf:
                raise LeafError(f"{'/'.join(path)} is declared twice: {self._run.leaves[path]} and {leaf}")
            return jnp.zeros(shape, dtype or leaf.dtype)
        value = leaves.get(name)
        if value is None or isinstance(value, Mapping):
            raise LeafError(f"{'/'.join(path)}: missing, expected shape {shape}")
        if value.shape != shape:
            raise LeafError(f"{'/'.join(path)}: found shape {value.shape}, expected {shape}")
        return jnp.asarray(value, dtype)

    def update(self, name: str, value: Array) -> None:
        """Hand back a new value of the running statistic `name`."""
        self._run.updates[(*self.path, name)] = value

    def capture(self, name: str, value: Any) -> None:
        """Hand back an intermediate, kept only where `apply`'s `capture` pattern matches its path."""
        path = (*self.path, name)
        if self._run.capture is not None and fnmatchcase("/".join(path), self._run.capture):
            self._run.intermediates[path] = value

    def rng(self, name: str) -> PRNGKeyArray:
        """The random key of this path and `name`, the same in every framework and under every transformation."""
        path = (*self.path, name)
        if self._run.key is None:
            raise MissingKeyError(f"{'/'.join(path)} draws random numbers in training: pass rng=jax.random.key(...)")
        if path in self._run.drawn:
            raise ValueError(f"{'/'.join(path)}: this random key was drawn before; give the second draw another name")
        return self._run.key_at(path)

    def substituting(self, functions: Mapping[str, Callable]) -> "Scope":
        """The same node, with plain functions `(scope, x)` in the place of the kernels at these paths."""
        paths = {tuple(path.split("/")): function for path, function in functions.items()}
        return Scope(replace(self._run, substitutes=paths), self.path, self._params, self._stats)

    def call(self, block: Callable, x: Any, *args, **kwargs) -> Any:
        """Run `block(self, x, *args, **kwargs)`; where it is compiled, as `recomputed` makes it.

        Where `apply(remat=True)` asks, its derivative keeps nothing but its inputs. The block runs as a pure function
        with collectors of its own, so that batch norm, dropout and captures inside it pass through the transformation.
        """
        run = self._run
        compiled = any(map(_is_compiled, jax.tree.leaves(x))) and not self._modules()
        if run.abstract or run.recomputing or not (run.remat or compiled):
            return block(self, x, *args, **kwargs)
        names = None
        if run.key is not None:
            names = np.array([stable_hash(name) for name in self.path[len(run.root) :]], np.uint32)
        pure = self._shared(block, args, kwargs)
        value, *others = pure(self._params, self._stats, run.key, names, x)
        for target, found in zip((run.updates, run.intermediates), others):
            target.update({(*self.path, *path): v for path, v in found.items()})
        return value

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
        each = dict(each or {})
        run = self._run
        after = None if run.capture is None else after
        if run.scan and not run.abstract and n > 1:
            return self._scan(block, x, n, each, after, kwargs)
        for i in range(n):
            # What differs from block to block cannot change what a block declares, so spec need not tell them apart.
            same = run.abstract and run.calls is None
            options = {name: values[0 if same else i] for name, values in each.items()}
            x = self[i].call(block, x, **options, **kwargs)
            if after is not None:
                after(i, x)
        return x

    def _scan(self, block, x, n, each, after, kwargs):
        run, nodes = self._run, [self[i] for i in range(n)]
        if modules := self._modules():
            raise ValueError(f"{'/'.join(modules[0])} is replaced by a module of its own: run without scan=True")

        def stack(trees):
            try:
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
            except ValueError as error:
                raise LeafError(f"{'/'.join(self.path)}: the blocks to scan over differ: {error}") from error

        # What is the same for every block stays a number: a rate of zero draws no mask.
        kwargs = {**kwargs, **{name: values[0] for name, values in each.items() if len(set(values)) == 1}}
        each = {name: values for name, values in each.items() if name not in kwargs}
        inputs = (
            stack([node._params for node in nodes]),
            stack([node._stats for node in nodes]),
            None if run.key is None else jnp.stack([run.key_at(node.path) for node in nodes]),
            {name: jnp.asarray(values, jnp.float32) for name, values in each.items()},
        )

        def body(x, inputs):
            params, stats, key, options = inputs
            pure: Callable = functools.partial(nodes[0]._pure, block, args=(), kwargs={**options, **kwargs})
            if run.remat or run.training:
                pure = recomputed(pure, self._kept())
            x, updates, intermediates = pure(params, stats, key, x)
            return x, (updates, intermediates, x if after is not None else None)

        x, (updates, intermediates, values) = jax.lax.scan(body, x, inputs)
        for i in range(n):
            for target, stacked in ((run.updates, updates), (run.intermediates, intermediates)):
                for path, value in stacked.items():
                    target[(*self.path, str(i), *path)] = jax.tree.map(lambda v, i=i: v[i], value)
            if after is not None:
                after(i, jax.tree.map(lambda v, i=i: v[i], values))
        return x

    def _modules(self) -> list[Path]:
        """Paths at or below this one whose kernels are replaced by modules, which may have side effects."""
        return [path for path in self._run.modules if path[: len(self.path)] == self.path]

    def _shared(self, block: Callable, args: tuple, kwargs: Mapping) -> Recomputed:
        """`block` as a pure function, recomputed in the backward pass, that equal blocks have in common.

        A block's random keys follow from the root's key and the hashes of the names that lead to it.
        """
        run = self._run

        def pure(params, stats, key, names, x):
            own_key = None if key is None else functools.cache(lambda: functools.reduce(jax.random.fold_in, names, key))
            return self._pure(block, params, stats, own_key, x, args=args, kwargs=kwargs)

        shared = Recomputed(pure, self._kept())
        if run.capture is not None or run.modules or run.substitutes:  # these depend on the path
            return shared
        options, structure = jax.tree.flatten((args, kwargs))
        try:
            return run.blocks.setdefault((block, structure, tuple(options)), shared)
        except TypeError:  # an option that cannot be hashed
            return shared

    def _kept(self) -> Policy:
        """What blocks keep for their derivative."""
        return nothing if self._run.remat else costly

    def _pure(self, block, params, stats, key, x, *, args, kwargs):
        """`block` as a pure function of its inputs: value, new statistics and intermediates, by their paths in it."""
        run, depth = self._run.fork(key=key, root=self.path, recomputing=True), len(self.path)
        value = block(Scope(run, self.path, params, stats), x, *args, **kwargs)
        updates, intermediates = (
            {path[depth:]: v for path, v in found.items()} for found in (run.updates, run.intermediates)
        )
        return value, updates, intermediates


def kernel(fn: Callable) -> Callable:
    """Make `fn(scope, x, ...)` callable on a plain nested dict of parameters (or of variables) too.

    On a mapping it runs pure inference in the dtype of its first array argument.
    """

    @functools.wraps(fn)
    def wrapper(scope, *args, **kwargs):
        if not isinstance(scope, Scope):
            scope = Scope(_Run(dtype=_float_dtype((args, kwargs))), (), *_collections(scope))
        run = scope._run
        if scope.path in run.substitutes:
            return run.substitutes[scope.path](scope, args[0])
        if run.calls is not None:
            return _recorded_call(fn, scope, args, kwargs)
        if run.abstract:
            return _abstract_call(fn, scope, args, kwargs)
        if scope.path in run.modules:
            run.replaced.add(scope.path)
            return run.modules[scope.path](args[0])
        with jax.named_scope(fn.__name__):
            return fn(scope, *args, **kwargs)

    vars(wrapper)["is_kernel"] = True  # so that whoever lists kernels can tell them from plain functions
    return wrapper


def _abstract_call(fn: Callable, scope: Scope, args: tuple, kwargs: dict) -> Any:
    """Trace `fn` once for equal inputs and reuse what it declared, so that a stack of equal blocks costs one."""
    run = scope._run
    if run.substitutes:  # they depend on paths, equal inputs do not tell all
        return fn(scope, *args, **kwargs)
    flat, structure = jax.tree.flatten((args, kwargs))
    try:
        signature = (fn, structure, tuple((v.shape, v.dtype) if isinstance(v, jax.Array) else v for v in flat))
        known = run.memo.get(signature)
    except TypeError:  # an argument that cannot be hashed
        signature, known = None, None
    if known is None:
        inner, depth = run.fork(), len(scope.path)
        value = fn(Scope(inner, scope.path), *args, **kwargs)
        flat, structure = jax.tree.flatten(value)
        leaves = {(collection, *path[depth:]): leaf for (collection, *path), leaf in inner.leaves.items()}
        intermediates = {path[depth:]: v for path, v in inner.intermediates.items()}
        known = leaves, intermediates, structure, [_shape_of(v) for v in flat]
        if signature is not None:
            run.memo[signature] = known
    else:
        value = jax.tree.unflatten(known[2], [_zeros(v) for v in known[3]])
    for (collection, *path), leaf in known[0].items():
        full = (collection, *scope.path, *path)
        if run.leaves.setdefault(full, leaf) != leaf:
            raise LeafError(f"{'/'.join(full)} is declared twice: {run.leaves[full]} and {leaf}")
    for path, intermediate in known[1].items():
        run.intermediates[(*scope.path, *path)] = intermediate
    return value


def _recorded_call(fn: Callable, scope: Scope, args: tuple, kwargs: dict) -> Any:
    """Trace `fn` and record the call, after those that it makes itself."""
    run, (producer, _) = scope._run, scope._run.produced.get(id(args[0]), (None, None))
    assert run.calls is not None
    value = fn(scope, *args, **kwargs)
    (x, *rest), options = _described(run, (args, kwargs))
    run.calls.append(Call(inspect.unwrap(fn), "/".join(scope.path), options, producer, x=x, args=tuple(rest)))
    if producer is not None:
        run.calls[producer] = run.calls[producer]._replace(uses=run.calls[producer].uses + 1)
    run.produced.setdefault(id(value), (len(run.calls) - 1, value))  # the value too, so that its id stays its own
    return value


def _described(run: _Run, values: Any) -> Any:
    """`values` with shape and dtype in the place of each traced array."""

    def describe(value):
        if not isinstance(value, jax.core.Tracer):
            return value
        known = value, jax.ShapeDtypeStruct(value.shape, value.dtype)  # the array too, so that its id stays its own
        return run.described.setdefault(id(value), known)[1]

    return jax.tree.map(describe, values)


def _is_compiled(x: Any) -> bool:
    """Whether `x` is a value of a function that is being compiled, perhaps differentiated or mapped on the way."""
    while isinstance(x, jax.core.Tracer) and not isinstance(x, DynamicJaxprTracer):
        x = getattr(x, "primal", getattr(x, "val", None))
    return isinstance(x, jax.core.Tracer)


def _shape_of(value: Any) -> Any:
    return jax.ShapeDtypeStruct(value.shape, value.dtype) if isinstance(value, jax.Array) else value


def _zeros(value: Any) -> Any:
    return jnp.zeros(value.shape, value.dtype) if isinstance(value, jax.ShapeDtypeStruct) else value


def _collections(variables: Mapping) -> tuple[Mapping, Mapping]:
    """Parameters and running statistics of `variables`, which may be a plain tree of parameters."""
    if set(variables) <= {PARAMS, STATS}:
        return variables.get(PARAMS, {}), variables.get(STATS, {})
    return variables, {}


def _float_dtype(tree: Any) -> Any:
    """The dtype of the first floating array in `tree`, float32 where there is none."""
    for value in jax.tree.leaves(tree):
        if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating):
            return value.dtype
    return jnp.dtype(jnp.float32)


def _abstract(fn: Callable, args: tuple, kwargs: dict, capture: str | None = None):
    """Leaves that `fn` declares, and the shapes of its value and of the intermediates that match `capture`."""
    run = _Run(abstract=True, dtype=_float_dtype(args), capture=capture)

    def trace(*arrays):
        value = fn(Scope(run), *arrays, **kwargs)
        return value, {"/".join(path): v for path, v in run.intermediates.items()}

    value, intermediates = jax.eval_shape(trace, *args)
    # A dict comes back with its keys sorted; what was captured comes in the order of capture.
    return run.leaves, value, {path: intermediates[path] for path in map("/".join, run.intermediates)}


def spec(fn: Callable, *args, **kwargs) -> dict:
    """The leaves of kernel `fn`, as a tree of `Leaf`; no FLOPs, no arrays.

    `args` are arrays or `jax.ShapeDtypeStruct`s; `kwargs` the kernel's options.
    """
    leaves, _, _ = _abstract(fn, args, kwargs)
    return nest({(PARAMS,): {}, **leaves}) if not leaves else nest(leaves)


def shapes(fn: Callable, *args, capture: str | None = None, **kwargs) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """Shape and dtype of `fn`'s value, and of the intermediates that match `capture`."""
    _, value, intermediates = _abstract(fn, args, kwargs, capture)
    return value, intermediates


def calls(fn: Callable, *args, **kwargs) -> list[Call]:
    """Every call of a kernel that `fn` makes, the inner ones first; no FLOPs, no arrays."""
    run = _Run(abstract=True, dtype=_float_dtype(args), calls=[])
    jax.eval_shape(lambda *arrays: fn(Scope(run), *arrays, **kwargs), *args)
    assert run.calls is not None
    return run.calls


def init(fn: Callable, key: PRNGKeyArray, *args, **kwargs) -> dict:
    """Initial variables of kernel `fn`; no forward pass."""
    return init_leaves(spec(fn, *args, **kwargs), key)


def apply(
    fn: Callable,
    variables: Mapping,
    *args,
    training: bool = False,
    use_running_average: bool | None = None,
    rng: PRNGKeyArray | None = None,
    capture: str | None = None,
    dtype: Any = None,
    remat: bool = False,
    scan: bool = False,
    axis_name: Any = None,
    modules: Mapping[str, Callable] | None = None,
    **kwargs,
) -> Output:
    """Run kernel `fn` on `variables` as a pure function.

    Args:
        fn: A kernel; `args` are its arrays and `kwargs` its options.
        variables: `{"params": ..., "batch_stats": ...}`, or a plain tree of parameters.
        training: Batch statistics instead of running ones, dropout.
        use_running_average: Whether batch norm uses running statistics and leaves them as they are, whatever `training`
            says: True for frozen batch norm in training.
        rng: Key for dropout and stochastic depth.
        capture: Shell-style pattern of the intermediates to keep, `"*"` for all, `"stage_*"`.
        dtype: Compute dtype, by default that of the first floating array in `args`. Parameters stay as stored and are
            cast where they are read; softmax and normalisation statistics stay float32.
        remat: Recompute blocks in the backward pass instead of keeping their activations.
        scan: Compile stacks of equal blocks once.
        axis_name: Mapped axis (of `jax.vmap`, `jax.shard_map`) whose members form one batch for batch norm.
        modules: Functions `x -> y` that replace the kernels at these paths (`{"fc": my_head}`).

    Raises:
        LeafError: Leaves are missing or misshapen; all of them are listed.
        ValueError: A module is to replace a node where no kernel runs: a whole stage, or one that isn't there.
    """
    dtype = jnp.dtype(dtype) if dtype is not None else _float_dtype(args)
    args = jax.tree.map(lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None), args)
    replaced = {tuple(path.split("/")): module for path, module in (modules or {}).items()}
    run = _Run(
        training=training,
        use_running_average=use_running_average,
        dtype=dtype,
        key=rng,
        capture=capture,
        remat=remat,
        scan=scan,
        axis_name=axis_name,
        modules=replaced,
    )
    params, stats = _collections(variables)
    try:
        value = fn(Scope(run, (), params, stats), *args, **kwargs)
    except LeafError as error:
        _check_modules(fn, args, kwargs, run.modules)
        everything = [
            line
            for line in mismatches(spec(fn, *args, **kwargs), {PARAMS: params, STATS: stats})
            if not any(line.partition("/")[2].startswith(f"{'/'.join(path)}/") for path in run.modules)
        ]
        raise LeafError("\n".join(everything or [str(error)])) from None
    if unused := run.modules.keys() - run.replaced:
        _check_modules(fn, args, kwargs, unused)
    intermediates = {"/".join(path): captured for path, captured in run.intermediates.items()}
    return Output(value, merge(stats, run.updates), intermediates)


def _check_modules(fn: Callable, args: tuple, kwargs: dict, paths: Iterable[Path]) -> None:
    """Raise ValueError where `fn` runs no kernel at one of the `paths`, where modules are to stand."""
    kernels = {tuple(call.path.split("/")) for call in calls(fn, *args, **kwargs) if call.path} if paths else set()
    wrong = []
    for path in sorted(set(paths) - kernels):
        message = f"a module is to replace {'/'.join(path)}, where no kernel runs that it could replace"
        below = sorted({other[: len(path) + 1] for other in kernels if other[: len(path)] == path}, key=_by_number)
        if below:
            message += f"; replace what is below it, one by one: {', '.join(map('/'.join, below))}"
        else:
            nearest = difflib.get_close_matches("/".join(path), map("/".join, sorted(kernels)), 1, cutoff=0)
            message += "".join(f"; the nearest kernel is {near}" for near in nearest)
        wrong.append(message)
    if wrong:
        raise ValueError("\n".join(wrong))


def _by_number(path: Path) -> list:
    return [(int(name), "") if name.isdigit() else (-1, name) for name in path]
