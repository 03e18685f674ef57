"""Every JAX internal that flaim relies on: nothing else in flaim imports one.

JAX promises nothing of what stands here. Each was seen to work in jax 0.10.0 to 0.12.0; where one is gone, importing
flaim_core fails and says which, instead of taking a slower way without a word.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax

KNOWN_VERSIONS = "jax 0.10.0 to 0.12.0"


def _internal(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"flaim_core relies on {module}.{name}, which jax {jax.__version__} does not have. "
            f"It is known to work with {KNOWN_VERSIONS}: install one of these, or a newer flaim."
        ) from error


# Programs: what jax.make_jaxpr returns, and how to run it.
Primitive = _internal("jax.extend.core", "Primitive")
Var = _internal("jax.extend.core", "Var")
_eval_jaxpr = _internal("jax.core", "eval_jaxpr")
ShapedArray = _internal("jax.core", "ShapedArray")
_unmapped_aval = _internal("jax.extend.core", "unmapped_aval")

max_dim, min_dim = _internal("jax.core", "max_dim"), _internal("jax.core", "min_dim")
_jit_p, _remat_p = (_internal("jax.extend.core.primitives", name) for name in ("jit_p", "remat_p"))

# Tracers: what is being compiled.
Tracer = _internal("jax.core", "Tracer")
_DynamicJaxprTracer = _internal("jax.interpreters.partial_eval", "DynamicJaxprTracer")

# Rules of primitives.
defbilinear = _internal("jax.interpreters.ad", "defbilinear")
_primitive_jvps = _internal("jax.interpreters.ad", "primitive_jvps")
_primitive_transposes = _internal("jax.interpreters.ad", "primitive_transposes")
instantiate_zeros = _internal("jax.interpreters.ad", "instantiate_zeros")
_is_undefined_primal = _internal("jax.interpreters.ad", "is_undefined_primal")
Zero = _internal("jax.interpreters.ad", "Zero")
_fancy_primitive_batchers = _internal("jax.interpreters.batching", "fancy_primitive_batchers")
_register_lowering = _internal("jax.interpreters.mlir", "register_lowering")
_lower_fun = _internal("jax.interpreters.mlir", "lower_fun")

# An attribute of a call in the compiled program, of which XLA on a CPU reads "inlineable".
_set_xla_metadata = _internal("jax.experimental.xla_metadata", "set_xla_metadata")

# Operations by which a remat policy decides.
reduce_sum_p = _internal("jax.lax", "reduce_sum_p")
conv_general_dilated_p = _internal("jax.lax", "conv_general_dilated_p")
reduce_precision_p = _internal("jax.lax", "reduce_precision_p")


def _products() -> tuple:
    """lax's products as they are now: the functions and the code in them."""
    functions = lax.dot_general, lax.conv_general_dilated
    return tuple((f, getattr(f, "__code__", None)) for f in functions)


_OWN_PRODUCTS = _products()


def products_are_intercepted() -> bool:
    """Whether somebody has put another function in the place of lax's products, as quantisation libraries do."""
    return _products() != _OWN_PRODUCTS


def is_compiled(x: Any) -> bool:
    """Whether `x` is a value of a function that is being compiled, perhaps differentiated or mapped on the way."""
    while isinstance(x, Tracer) and not isinstance(x, _DynamicJaxprTracer):
        x = getattr(x, "primal", getattr(x, "val", None))
    return isinstance(x, Tracer)


def is_only_compiled(x: Any) -> bool:
    """Whether `x` is a value of a function that is being compiled, neither differentiated nor mapped."""
    return isinstance(x, _DynamicJaxprTracer)


class Context(NamedTuple):
    """What a user's context says of operations while they are traced, for what is traced again when it is compiled."""

    matmul_precision: str | None
    x64: bool

    @classmethod
    def now(cls) -> "Context":
        """The one that holds where this is called."""
        config: Any = jax.config
        return cls(config.jax_default_matmul_precision, config.jax_enable_x64)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Let it hold once more."""
        with jax.default_matmul_precision(self.matmul_precision), jax.enable_x64(self.x64):
            yield


class Program:
    """A function of flat arrays that has been traced for inputs of certain shapes and dtypes."""

    def __init__(self, jaxpr: Any, consts: Sequence[Any] = ()):
        self.jaxpr, self.consts = jaxpr, tuple(consts)
        self.outputs = [v.aval for v in jaxpr.outvars]

    def __call__(self, *inputs: Any) -> list:
        """Run it, as part of what is being traced."""
        return _eval_jaxpr(self.jaxpr, self.consts, *inputs)

    @property
    def has_effects(self) -> bool:
        """Whether it does more than compute its outputs: sums over a mapped axis, callbacks, prints."""
        return bool(self.jaxpr.effects)

    def with_constants_as_inputs(self) -> "Program":
        """The same, whose first inputs are its constants."""
        jaxpr = self.jaxpr
        return Program(jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars]))

    def mapped_outputs(self, mapped: Sequence[bool]) -> list[bool]:
        """Which outputs depend on an input that is mapped."""
        found = {v for v, is_mapped in zip(self.jaxpr.invars, mapped) if is_mapped}
        for equation in self.jaxpr.eqns:
            inputs = [isinstance(v, Var) and v in found for v in equation.invars]
            if not any(inputs):
                continue
            if equation.primitive is _jit_p or equation.primitive is _remat_p:
                inner = equation.params["jaxpr"]
                outputs = Program(getattr(inner, "jaxpr", inner)).mapped_outputs(inputs)
            else:
                outputs = [True] * len(equation.outvars)
            found |= {v for v, is_mapped in zip(equation.outvars, outputs) if is_mapped}
        return [isinstance(v, Var) and v in found for v in self.jaxpr.outvars]


def _of_closed(closed: Any) -> Program:
    return Program(closed.jaxpr, closed.consts)


def trace(function: Callable, *inputs: Any) -> tuple[Program, Any]:
    """`function` of trees of arrays as a program of flat ones, and the structure of what it returns."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    return _of_closed(traced), jax.tree.structure(shapes)


def define(
    name: str,
    run: Callable,
    abstract: Callable,
    *,
    multiple_results: bool = True,
    jvp: Callable | None = None,
    transpose: Callable | None = None,
    batch: Callable | None = None,
) -> Any:
    """A primitive whose meaning is `run(*inputs, **params)`, with the rules that jax asks for by these names.

    `abstract(*avals, **params)` gives the results' abstract values; `batch(axis, inputs, dims, **params)` is told the
    mapped axis.
    """
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
    primitive.def_impl(run)
    primitive.def_abstract_eval(abstract)
    _register_lowering(primitive, _lower_fun(run, multiple_results=multiple_results))
    if jvp is not None:
        _primitive_jvps[primitive] = jvp
    if transpose is not None:
        _primitive_transposes[primitive] = transpose
    if batch is not None:
        _fancy_primitive_batchers[primitive] = functools.partial(_batched, primitive, batch)
    return primitive


def _batched(primitive: Any, rule: Callable, axis: Any, inputs: Sequence[Any], dims: Sequence[Any], **params: Any):
    """`rule`, where something is mapped: jax asks these rules even where nothing is."""
    if any(dim is not None for dim in dims):
        return rule(axis, inputs, dims, **params)
    outputs = primitive.bind(*inputs, **params)
    return outputs, [None] * len(outputs) if primitive.multiple_results else None


# One way to choose by platform: a primitive that is traced where it is compiled, for that platform alone.


def lower_per_platform(
    *inputs: Any, cpu: Callable, default: Callable, outputs: Sequence[Any], like: Program | None = None
) -> list:
    """`default(*inputs)`, a list of arrays; on a CPU `cpu(*inputs)`, equal to it.

    `jax.lax.platform_dependent` traces both functions wherever it is called; here only the one that is compiled is
    traced. Derivatives are those of `default`.

    Args:
        inputs: Arrays.
        cpu, default: Functions of them.
        outputs: The results' abstract values.
        like: A program whose outputs depend on the same inputs; without one, each output depends on all.
    """
    context = Context.now()
    return _per_platform.bind(*inputs, cpu=cpu, default=default, outputs=tuple(outputs), like=like, context=context)


def _run_default(*inputs, cpu, default, outputs, like, context):
    with context.again():
        return default(*inputs)


def _run_cpu(*inputs, cpu, default, outputs, like, context):
    with context.again():
        return cpu(*inputs)


def _per_platform_jvp(primals, tangents, **params):
    run = functools.partial(_run_default, **params)
    return jax.jvp(run, tuple(primals), tuple(map(instantiate_zeros, tangents)))


def _per_platform_transpose(cotangents, *inputs, **params):
    linear = [i for i, x in enumerate(inputs) if _is_undefined_primal(x)]

    def of_linear(*tangents):
        mixed = dict(zip(linear, tangents))
        return _run_default(*(mixed.get(i, x) for i, x in enumerate(inputs)), **params)

    transposed = jax.linear_transpose(of_linear, *(inputs[i].aval for i in linear))
    found = dict(zip(linear, transposed([*map(instantiate_zeros, cotangents)])))
    return [found.get(i) for i in range(len(inputs))]


def _per_platform_batch(axis, inputs, dims, *, cpu, default, outputs, like, context):
    mapped = [dim is not None for dim in dims]
    out = [True] * len(outputs) if like is None else like.mapped_outputs(mapped)
    out_dims = [0 if is_mapped else None for is_mapped in out]
    cpu, default = (vmap(function, axis, dims, out_dims) for function in (cpu, default))
    outputs = [_unmapped_aval(axis.size, 0, y) if is_mapped else y for y, is_mapped in zip(outputs, out)]
    # Outputs of the mapped program depend on the inputs as before.
    params = dict(cpu=cpu, default=default, outputs=tuple(outputs), like=like, context=context)
    return _per_platform.bind(*inputs, **params), out_dims


def vmap(function: Callable, axis: Any, dims: Sequence[Any], out_dims: Sequence[Any]) -> Callable:
    """`jax.vmap` of a function that returns a list, over the axis that a batching rule is told."""
    return jax.vmap(function, tuple(dims), list(out_dims), axis_name=axis.name, axis_size=axis.size)


_per_platform = define(
    "lower_per_platform",
    _run_default,
    lambda *inputs, outputs, **_: outputs,
    jvp=_per_platform_jvp,
    transpose=_per_platform_transpose,
    batch=_per_platform_batch,
)
_register_lowering(_per_platform, _lower_fun(_run_cpu, multiple_results=True), platform="cpu")


def no_inline(function: Callable) -> Callable:
    """`function`, compiled by XLA on a CPU apart from what surrounds it.

    Optimisation barriers do not do this: XLA drops them before it fuses, and before it merges equal computations.
    """

    def inside(*args):
        with _set_xla_metadata(inlineable=None):  # the attribute holds for nested calls too, unless taken back
            return function(*args)

    compiled = jax.jit(inside)

    def call(*args):
        with _set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


def linearize(function: Callable, *inputs: Any) -> tuple[Any, list, Callable]:
    """A linearisation: the auxiliary values of `function`, residuals, and the linear map of these and of tangents.

    `function` returns its outputs and auxiliary values. What `jax.linearize` gives for the linear map is a tree
    of residuals that can be called.
    """
    _, linear, auxiliary = jax.linearize(function, *inputs, has_aux=True)
    residuals, structure = jax.tree.flatten(linear)
    count = len(residuals)  # the function outlives this trace, so it may not hold the residuals

    def of_tangents(*operands: Any) -> list:
        return jax.tree.unflatten(structure, operands[:count])(*operands[count:])

    return auxiliary, residuals, of_tangents
