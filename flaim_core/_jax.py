"""Every JAX internal that flaim uses. No other module of flaim imports one.

These names are not part of JAX's public API and may change in any release. All are tested in `KNOWN_VERSIONS`. If one
is missing, importing flaim_core raises an ImportError that names it. There is no silent, slower fallback.
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


# Jaxprs: what jax.make_jaxpr returns, and how to evaluate it.
Primitive = _internal("jax.extend.core", "Primitive")
Var = _internal("jax.extend.core", "Var")
_eval_jaxpr = _internal("jax.core", "eval_jaxpr")
ShapedArray = _internal("jax.core", "ShapedArray")
_unmapped_aval = _internal("jax.extend.core", "unmapped_aval")

max_dim, min_dim = _internal("jax.core", "max_dim"), _internal("jax.core", "min_dim")
_jit_p, _remat_p = (_internal("jax.extend.core.primitives", name) for name in ("jit_p", "remat_p"))

# Tracers.
Tracer = _internal("jax.core", "Tracer")
_DynamicJaxprTracer = _internal("jax.interpreters.partial_eval", "DynamicJaxprTracer")

# Where the rules of primitives (JVP, transpose, batching, lowering) are registered.
defbilinear = _internal("jax.interpreters.ad", "defbilinear")
_primitive_jvps = _internal("jax.interpreters.ad", "primitive_jvps")
_primitive_transposes = _internal("jax.interpreters.ad", "primitive_transposes")
instantiate_zeros = _internal("jax.interpreters.ad", "instantiate_zeros")
_is_undefined_primal = _internal("jax.interpreters.ad", "is_undefined_primal")
Zero = _internal("jax.interpreters.ad", "Zero")
_fancy_primitive_batchers = _internal("jax.interpreters.batching", "fancy_primitive_batchers")
_register_lowering = _internal("jax.interpreters.mlir", "register_lowering")
_lower_fun = _internal("jax.interpreters.mlir", "lower_fun")

# Sets attributes of function calls in the compiled program. XLA for CPUs reads the attribute "inlineable".
_set_xla_metadata = _internal("jax.experimental.xla_metadata", "set_xla_metadata")

# Primitives that a remat policy looks for.
reduce_sum_p = _internal("jax.lax", "reduce_sum_p")
conv_general_dilated_p = _internal("jax.lax", "conv_general_dilated_p")
reduce_precision_p = _internal("jax.lax", "reduce_precision_p")


def _products() -> tuple:
    """The functions `lax.dot_general` and `lax.conv_general_dilated`, and their code objects, as they are now."""
    functions = lax.dot_general, lax.conv_general_dilated
    return tuple((f, getattr(f, "__code__", None)) for f in functions)


_OWN_PRODUCTS = _products()


def lax_is_patched() -> bool:
    """Whether another library has replaced one of these functions, as qwix does to quantise."""
    return _products() != _OWN_PRODUCTS


def is_under_jit(x: Any) -> bool:
    """Whether `x` is traced by `jax.jit`, directly or inside `jax.grad`, `jax.vmap` and the like."""
    while isinstance(x, Tracer) and not isinstance(x, _DynamicJaxprTracer):
        x = getattr(x, "primal", getattr(x, "val", None))
    return isinstance(x, Tracer)


def is_only_under_jit(x: Any) -> bool:
    """Whether `x` is traced by `jax.jit` alone: neither differentiated nor mapped."""
    return isinstance(x, _DynamicJaxprTracer)


class Context(NamedTuple):
    """The user's settings that decide how an operation is traced.

    A primitive's implementation is traced late, when the program is lowered. It must see the settings that held where
    the user called the operation.
    """

    matmul_precision: str | None
    x64: bool

    @classmethod
    def current(cls) -> "Context":
        """The settings that hold now."""
        config: Any = jax.config
        return cls(config.jax_default_matmul_precision, config.jax_enable_x64)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A `with` block in which these settings hold."""
        with jax.default_matmul_precision(self.matmul_precision), jax.enable_x64(self.x64):
            yield


class Program:
    """A function from a list of arrays to a list of arrays, traced for fixed shapes and dtypes: a jaxpr."""

    def __init__(self, jaxpr: Any, consts: Sequence[Any] = ()):
        self.jaxpr, self.consts = jaxpr, tuple(consts)
        self.outputs = [v.aval for v in jaxpr.outvars]

    def __call__(self, *inputs: Any) -> list:
        """Evaluate the jaxpr on these inputs; under a trace, this inlines it."""
        return _eval_jaxpr(self.jaxpr, self.consts, *inputs)

    @property
    def has_effects(self) -> bool:
        """Whether it has effects in JAX's sense: collectives over a named axis (`psum`), callbacks, prints."""
        return bool(self.jaxpr.effects)

    def with_constants_as_inputs(self) -> "Program":
        """The same program with its constants as additional inputs, before the others."""
        jaxpr = self.jaxpr
        return Program(jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars]))

    def mapped_outputs(self, mapped: Sequence[bool]) -> list[bool]:
        """For each output, whether it depends on an input that `jax.vmap` maps."""
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
    """Trace `function`, which takes and returns pytrees: the flat program, and the tree structure of its output."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    return _of_closed(traced), jax.tree.structure(shapes)


def define_primitive(
    name: str,
    run: Callable,
    abstract: Callable,
    *,
    multiple_results: bool = True,
    jvp: Callable | None = None,
    transpose: Callable | None = None,
    batch: Callable | None = None,
) -> Any:
    """A new primitive with its rules.

    Args:
        name: In jaxprs.
        run: `run(*inputs, **params)`, its implementation; also its lowering.
        abstract: `abstract(*avals, **params)`, the abstract values of its results.
        jvp, transpose: Rules as `jax.interpreters.ad` calls them.
        batch: `batch(axis, inputs, dims, **params)`, the rule for `jax.vmap`; `axis` has the name and the size.
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
    """Apply `rule` if an input is mapped. JAX calls batching rules of this kind even if none is."""
    if any(dim is not None for dim in dims):
        return rule(axis, inputs, dims, **params)
    outputs = primitive.bind(*inputs, **params)
    return outputs, [None] * len(outputs) if primitive.multiple_results else None


# One primitive with two implementations, one for CPUs and one for every other platform.


def lower_per_platform(
    *inputs: Any, cpu: Callable, default: Callable, outputs: Sequence[Any], like: Program | None = None
) -> list:
    """`cpu(*inputs)` where the program is compiled for a CPU, `default(*inputs)` elsewhere.

    Like `jax.lax.platform_dependent`, which however traces both functions at each call. Here the function is traced
    when the program is lowered, and only the one for that platform.

    Args:
        inputs: Arrays.
        cpu, default: Functions of the inputs that return equal lists of arrays. `default` is the one that is
            differentiated.
        outputs: The results' abstract values.
        like: A program with the same inputs and outputs, which says which output depends on which input (for
            `jax.vmap`). If None, each output depends on all inputs.
    """
    context = Context.current()
    return _per_platform.bind(*inputs, cpu=cpu, default=default, outputs=tuple(outputs), like=like, context=context)


def _run_default(*inputs, cpu, default, outputs, like, context):
    with context.restored():
        return default(*inputs)


def _run_cpu(*inputs, cpu, default, outputs, like, context):
    with context.restored():
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
    # `like` stays valid: mapping does not change which output depends on which input.
    params = dict(cpu=cpu, default=default, outputs=tuple(outputs), like=like, context=context)
    return _per_platform.bind(*inputs, **params), out_dims


def vmap(function: Callable, axis: Any, dims: Sequence[Any], out_dims: Sequence[Any]) -> Callable:
    """`jax.vmap` of a function that returns a list, inside a batching rule that got `axis`."""
    return jax.vmap(function, tuple(dims), list(out_dims), axis_name=axis.name, axis_size=axis.size)


_per_platform = define_primitive(
    "lower_per_platform",
    _run_default,
    lambda *inputs, outputs, **_: outputs,
    jvp=_per_platform_jvp,
    transpose=_per_platform_transpose,
    batch=_per_platform_batch,
)
_register_lowering(_per_platform, _lower_fun(_run_cpu, multiple_results=True), platform="cpu")


def no_inline(function: Callable) -> Callable:
    """`function`, which XLA for CPUs does not inline: it is compiled on its own and not fused with its surroundings.

    `jax.lax.optimization_barrier` would not do: XLA removes barriers before fusion and before common-subexpression
    elimination.
    """

    def inside(*args):
        with _set_xla_metadata(inlineable=None):  # nested calls would inherit the attribute
            return function(*args)

    compiled = jax.jit(inside)

    def call(*args):
        with _set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


def linearize(function: Callable, *inputs: Any) -> tuple[Any, list, Callable]:
    """`jax.linearize` with explicit residuals.

    Args:
        function: Returns `(outputs, auxiliary values)`, as for `jax.linearize(..., has_aux=True)`.

    Returns:
        The auxiliary values, the residuals (a list of arrays), and the linear function
        `(*residuals, *tangents of the inputs) -> tangents of the outputs`.
    """
    _, linear, auxiliary = jax.linearize(function, *inputs, has_aux=True)
    residuals, structure = jax.tree.flatten(linear)
    count = len(residuals)  # the closure may not hold the residuals: they are tracers, and it outlives their trace

    def of_tangents(*operands: Any) -> list:
        return jax.tree.unflatten(structure, operands[:count])(*operands[count:])

    return auxiliary, residuals, of_tangents
