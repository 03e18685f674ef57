"""Uses of a kernel: `spec` and `init` (its leaves), `shapes`, `apply` (run it), `calls` (record calls of kernels)."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from flaim_core import _jax
from flaim_core.leaf import Leaf, LeafError, init_leaves, mismatches
from flaim_core.lowering import abstract_evaluation
from flaim_core.run import Options, Reading, Replacement, Run
from flaim_core.scope import PARAMS, STATS, Scope, collections_of, float_dtype
from flaim_core.tree import Path, merge, nest, shape_struct


class Output(NamedTuple):
    """What `apply` returns.

    Attributes:
        value: What the kernel returns.
        batch_stats: All running statistics, updated in training.
        intermediates: The captured intermediates, by path.
    """

    value: Any
    batch_stats: dict
    intermediates: dict[str, Any]


class Call(NamedTuple):
    """One call of a kernel, as recorded by `calls`.

    An array appears as its `jax.ShapeDtypeStruct`. If two calls got the same array, they hold the same object, so `is`
    tells whether inputs are identical.

    Attributes:
        function: The kernel without its decorator.
        path: Of the scope that it was called with, `"layer1/0/conv1"`.
        options: Its keyword arguments.
        producer: The call that returned this call's `x`, as an index into the list of all calls. If several did (a
            kernel that returns what another one returned), the innermost. None if no kernel returned it.
        uses: How many calls got this call's return value as their `x`.
        x: Its input.
        args: Its other positional arguments.
    """

    function: Callable
    path: str
    options: Mapping[str, Any]
    producer: int | None
    uses: int = 0
    x: Any = None
    args: tuple = ()


class Declare(Reading):
    """Collects the leaves that a kernel declares; runs on abstract values."""

    computes = False

    def __init__(self, options: Options):
        super().__init__(options)
        self.leaves: dict[Path, Leaf] = {}
        self._known: dict = {}

    def read(self, node, path, shape, init, layout, dtype):
        """Declare the leaf; the kernel gets zeros of its shape."""
        leaf = Leaf(shape, init, layout)
        self._declare(path, leaf)
        return jax.lax.broadcast(np.zeros((), dtype or leaf.dtype), shape)

    def _declare(self, path: Path, leaf: Leaf) -> None:
        if self.leaves.setdefault(path, leaf) != leaf:
            raise LeafError(f"{'/'.join(path)} is declared twice: {self.leaves[path]} and {leaf}")

    def stack(self, block, scope, x, n, each, after, kwargs):
        """Call all blocks with the first one's options. The options in `each` are rates, which change no leaf."""
        each = {name: [values[0]] * n for name, values in each.items()}
        return super().stack(block, scope, x, n, each, after, kwargs)

    def call(self, fn, scope, args, kwargs):
        """Call `fn`, or reuse what it declared in an earlier call with equal inputs: equal blocks are traced once."""
        if self.options.replaced or self.options.capture not in (None, "*"):  # then the result depends on the path
            return fn(scope, *args, **kwargs)
        flat, structure = jax.tree.flatten((args, kwargs))
        try:
            signature = (fn, structure, tuple((v.shape, v.dtype) if isinstance(v, jax.Array) else v for v in flat))
            known = self._known.get(signature)
        except TypeError:  # an unhashable argument
            signature, known = None, None
        if known is None:
            inner, depth = Declare(self.options), len(scope.path)
            inner._known = self._known
            value = fn(scope.under(inner), *args, **kwargs)
            flat, structure = jax.tree.flatten(value)
            leaves = {(collection, *path[depth:]): leaf for (collection, *path), leaf in inner.leaves.items()}
            intermediates = {path[depth:]: v for path, v in inner.collected.intermediates.items()}
            known = leaves, intermediates, structure, [_abstract(v) for v in flat]
            if signature is not None:
                self._known[signature] = known
        else:
            value = jax.tree.unflatten(known[2], [_zeros(v) for v in known[3]])
        for (collection, *path), leaf in known[0].items():
            self._declare((collection, *scope.path, *path), leaf)
        for path, intermediate in known[1].items():
            self.collected.intermediates[(*scope.path, *path)] = intermediate
        return value


class Record(Declare):
    """Collects all calls of kernels; runs on abstract values."""

    computes = True

    def __init__(self, options: Options):
        super().__init__(options)
        self.calls: list[Call] = []
        # By id of the array: the index of the call that returned it, and its shape. The arrays are kept, so that their
        # ids are not reused.
        self._produced: dict[int, tuple[int, Any]] = {}
        self._described: dict[int, tuple[Any, jax.ShapeDtypeStruct]] = {}

    def stack(self, block, scope, x, n, each, after, kwargs):
        """Call equal blocks, each with its own options."""
        return Reading.stack(self, block, scope, x, n, each, after, kwargs)

    def call(self, fn, scope, args, kwargs):
        """Call `fn` and record the call. Calls that `fn` makes are recorded before it."""
        producer, _ = self._produced.get(id(args[0]), (None, None))
        value = fn(scope, *args, **kwargs)
        (x, *rest), options = jax.tree.map(self._describe, (args, kwargs))
        self.calls.append(Call(inspect.unwrap(fn), "/".join(scope.path), options, producer, x=x, args=tuple(rest)))
        if producer is not None:
            self.calls[producer] = self.calls[producer]._replace(uses=self.calls[producer].uses + 1)
        self._produced.setdefault(id(value), (len(self.calls) - 1, value))
        return value

    def _describe(self, value: Any) -> Any:
        """The `jax.ShapeDtypeStruct` of a traced array, always the same object; any other value as it is."""
        if not isinstance(value, _jax.Tracer):
            return value
        return self._described.setdefault(id(value), (value, shape_struct(value)))[1]


def _abstract(value: Any) -> Any:
    return shape_struct(value) if isinstance(value, jax.Array) else value


def _zeros(value: Any) -> Any:
    return jnp.zeros(value.shape, value.dtype) if isinstance(value, jax.ShapeDtypeStruct) else value


def _declared(fn: Callable, args: tuple, kwargs: dict, capture: str | None = None):
    """The leaves that `fn` declares, and the shapes of its value and of the intermediates that match `capture`."""
    reading = Declare(Options(dtype=float_dtype(args), capture=capture))
    captured = reading.collected.intermediates

    def trace(*arrays):
        value = fn(Scope(reading), *arrays, **kwargs)
        return value, {"/".join(path): v for path, v in captured.items()}

    with abstract_evaluation():
        value, intermediates = jax.eval_shape(trace, *args)
    # `jax.eval_shape` sorts a dict by its keys; restore the order of capture.
    return reading.leaves, value, {path: intermediates[path] for path in map("/".join, captured)}


def spec(fn: Callable, *args, **kwargs) -> dict:
    """The leaves of kernel `fn`, as a tree of `Leaf`; computes nothing and allocates no arrays.

    `args` are arrays or `jax.ShapeDtypeStruct`s, `kwargs` the kernel's options.
    """
    leaves, _, _ = _declared(fn, args, kwargs)
    return nest({(PARAMS,): {}, **leaves}) if not leaves else nest(leaves)


def shapes(fn: Callable, *args, capture: str | None = None, **kwargs) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """Shape and dtype of `fn`'s value, and of the intermediates that match `capture`."""
    _, value, intermediates = _declared(fn, args, kwargs, capture)
    return value, intermediates


def calls(fn: Callable, *args, **kwargs) -> list[Call]:
    """All calls of kernels while `fn` runs, in the order in which they return; computes nothing.

    `fn`'s own call, if it is a kernel, is the last.
    """
    reading = Record(Options(dtype=float_dtype(args)))
    with abstract_evaluation():
        jax.eval_shape(lambda *arrays: fn(Scope(reading), *arrays, **kwargs), *args)
    return reading.calls


def init(fn: Callable, key: PRNGKeyArray, *args, **kwargs) -> dict:
    """Initial variables of kernel `fn`, without a forward pass."""
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
        training: Batch norm uses the batch's statistics, dropout drops.
        use_running_average: Whether batch norm uses the running statistics and does not update them; by default
            `not training`. True freezes batch norm in training.
        rng: Key for dropout and stochastic depth.
        capture: Shell-style pattern of the intermediates to return: `"stage_*"`; `"*"` for every feature map. Attention
            weights are large and computed only on request: `"*"` leaves them out, a pattern such as `"*attn*"` returns
            those of all blocks, as `blocks/0/attn/weights`.
        dtype: Compute dtype, by default that of the first floating array in `args`. Parameters are cast when a kernel
            reads them; softmax and normalisation statistics are in float32 or wider.
        remat: Recompute blocks in the backward pass instead of keeping their activations.
        scan: Run stacks of equal blocks as one `jax.lax.scan`, which compiles the block once.
        axis_name: Mapped axis (of `jax.vmap`, `jax.shard_map`) over which batch norm averages its statistics.
        modules: Functions `x -> y` that replace the kernels at these paths (`{"fc": my_head}`).

    Raises:
        LeafError: Leaves are missing or misshapen; lists all of them.
        ValueError: No kernel is called at a path in `modules`: it is a whole stage, or does not exist.
    """
    dtype = jnp.dtype(dtype) if dtype is not None else float_dtype(args)
    args = jax.tree.map(lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else None), args)
    replaced = {tuple(path.split("/")): _calling(module) for path, module in (modules or {}).items()}
    reading = Run(
        Options(
            training=training,
            use_running_average=use_running_average,
            dtype=dtype,
            key=rng,
            capture=capture,
            remat=remat,
            scan=scan,
            axis_name=axis_name,
            replaced=replaced,
        )
    )
    params, stats = collections_of(variables)
    try:
        value = fn(Scope(reading, (), params, stats), *args, **kwargs)
    except LeafError as error:
        _check_replaced(fn, args, kwargs, replaced)
        everything = [
            line
            for line in mismatches(spec(fn, *args, **kwargs), {PARAMS: params, STATS: stats})
            if not any(line.partition("/")[2].startswith(f"{'/'.join(path)}/") for path in replaced)
        ]
        raise LeafError("\n".join(everything or [str(error)])) from None
    if unused := replaced.keys() - reading.collected.called:
        _check_replaced(fn, args, kwargs, unused)
    intermediates = {"/".join(path): captured for path, captured in reading.collected.intermediates.items()}
    return Output(value, merge(stats, reading.collected.updates), intermediates)


def _calling(module: Callable) -> Replacement:
    """The replacement of a kernel by a user's module, which has its own leaves and may have side effects."""
    return Replacement(lambda scope, x: module(x), True)


def _check_replaced(fn: Callable, args: tuple, kwargs: dict, paths: Iterable[Path]) -> None:
    """Raise ValueError if one of `paths`, the keys of `modules`, is not the path of a kernel."""
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
    """A sort key by which "10" comes after "9"."""
    return [(int(name), "") if name.isdigit() else (-1, name) for name in path]
