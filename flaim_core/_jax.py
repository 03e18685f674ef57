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

InconclusiveSizeError = _internal("jax.core", "InconclusiveDimensionOperation")
max_dim, min_dim = _internal("jax.core", "max_dim"), _internal("jax.core", "min_dim")
_jit_p = _internal("jax.extend.core.primitives", "jit_p")

# Tracers: what is being compiled.
Tracer = _internal("jax.core", "Tracer")
_DynamicJaxprTracer = _internal("jax.interpreters.partial_eval", "DynamicJaxprTracer")

# Rules of primitives.
_defbilinear = _internal("jax.interpreters.ad", "defbilinear")
_primitive_jvps = _internal("jax.interpreters.ad", "primitive_jvps")
_primitive_transposes = _internal("jax.interpreters.ad", "primitive_transposes")
_instantiate_zeros = _internal("jax.interpreters.ad", "instantiate_zeros")
_is_undefined_primal = _internal("jax.interpreters.ad", "is_undefined_primal")
Zero = _internal("jax.interpreters.ad", "Zero")
_primitive_batchers = _internal("jax.interpreters.batching", "primitive_batchers")
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
            inner = equation.params["jaxpr"] if equation.primitive is _jit_p else None
            outputs = [True] * len(equation.outvars) if inner is None else _of_closed(inner).mapped_outputs(inputs)
            found |= {v for v, is_mapped in zip(equation.outvars, outputs) if is_mapped}
        return [isinstance(v, Var) and v in found for v in self.jaxpr.outvars]


def _of_closed(closed: Any) -> Program:
    return Program(closed.jaxpr, closed.consts)


def trace(function: Callable, *inputs: Any) -> tuple[Program, Any]:
    """`function` of trees of arrays as a program of flat ones, and the structure of what it returns."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    return _of_closed(traced), jax.tree.structure(shapes)


def _define(name: str, run: Callable, abstract: Callable, *, multiple_results: bool) -> Any:
    """A primitive whose meaning is `run(*inputs, **params)`."""
    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
    primitive.def_impl(run)
    primitive.def_abstract_eval(abstract)
    _register_lowering(primitive, _lower_fun(run, multiple_results=multiple_results))
    return primitive


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


_per_platform = _define(
    "lower_per_platform",
    _run_default,
    lambda *inputs, outputs, **_: outputs,
    multiple_results=True,
)
_register_lowering(_per_platform, _lower_fun(_run_cpu, multiple_results=True), platform="cpu")


def _per_platform_jvp(primals, tangents, **params):
    run = functools.partial(_run_default, **params)
    return jax.jvp(run, tuple(primals), tuple(map(_instantiate_zeros, tangents)))


def _per_platform_transpose(cotangents, *inputs, **params):
    linear = [i for i, x in enumerate(inputs) if _is_undefined_primal(x)]

    def of_linear(*tangents):
        mixed = dict(zip(linear, tangents))
        return _run_default(*(mixed.get(i, x) for i, x in enumerate(inputs)), **params)

    transposed = jax.linear_transpose(of_linear, *(inputs[i].aval for i in linear))
    found = dict(zip(linear, transposed([*map(_instantiate_zeros, cotangents)])))
    return [found.get(i) for i in range(len(inputs))]


def _per_platform_batch(axis, inputs, dims, *, cpu, default, outputs, like, context):
    mapped = [dim is not None for dim in dims]
    out = [True] * len(outputs) if like is None else like.mapped_outputs(mapped)
    out_dims = [0 if is_mapped else None for is_mapped in out]
    cpu, default = (_vmap(function, axis, dims, out_dims) for function in (cpu, default))
    outputs = [_unmapped_aval(axis.size, 0, y) if is_mapped else y for y, is_mapped in zip(outputs, out)]
    # Outputs of the mapped program depend on the inputs as before.
    params = dict(cpu=cpu, default=default, outputs=tuple(outputs), like=like, context=context)
    return _per_platform.bind(*inputs, **params), out_dims


def _vmap(function: Callable, axis: Any, dims: Sequence[Any], out_dims: Sequence[Any]) -> Callable:
    return jax.vmap(function, tuple(dims), list(out_dims), axis_name=axis.name, axis_size=axis.size)


_primitive_jvps[_per_platform] = _per_platform_jvp
_primitive_transposes[_per_platform] = _per_platform_transpose
_fancy_primitive_batchers[_per_platform] = _per_platform_batch


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


# Bilinear primitives: functions of an image and a kernel whose gradients are primitives too.


def define_bilinear(
    name: str,
    generic: Callable,
    *,
    on_cpu: Callable,
    input_gradient: Callable,
    kernel_gradient: Callable,
    batch: Callable | None = None,
) -> tuple[Callable, Any]:
    """A function of arrays `x` and `kernel` and of hashable options, and the primitive that it binds.

    Its gradients are primitives too. All three are bilinear, and the transposes of each are the other two, so
    derivatives of any order run as fast.

    Args:
        name: Of the primitive; those of the gradients are `<name>_input_gradient` and `<name>_kernel_gradient`.
        generic: `generic(x, kernel, **options)`, the definition, by public operations.
        on_cpu: The same as a CPU runs it fastest.
        input_gradient: `input_gradient(cotangent, kernel, shape=..., **options)`, of `shape`, on a CPU; elsewhere the
            transpose of `generic`.
        kernel_gradient: `kernel_gradient(x, cotangent, shape=..., **options)`, likewise.
        batch: `batch(bind, operands, dims, **options)`, the rule for `jax.vmap`; without one, mapped images join the
            batch, and mapped kernels are left to `generic`.
    """

    def output_shape(x, kernel, *, context, **options):
        return jax.eval_shape(functools.partial(generic, **options), x, kernel).shape

    def generic_input(y, kernel, *, shape, **options):
        x = jax.ShapeDtypeStruct(shape, y.dtype)
        return jax.linear_transpose(lambda x: generic(x, kernel, **options), x)(y)[0]

    def generic_kernel(x, y, *, shape, **options):
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda kernel: generic(x, kernel, **options), kernel)(y)[0]

    def join(bind, args, dims, **options):
        (x, kernel), (x_dim, kernel_dim) = args, dims
        if kernel_dim is not None:
            return jax.vmap(functools.partial(generic, **options), tuple(dims))(x, kernel), 0
        x = jax.numpy.moveaxis(x, x_dim, 0)
        y = bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0

    output = _two_operands(name, generic, on_cpu, output_shape)
    to_input = _two_operands(f"{name}_input_gradient", generic_input, input_gradient, _shape_asked)
    to_kernel = _two_operands(f"{name}_kernel_gradient", generic_kernel, kernel_gradient, _shape_asked)
    _defbilinear(
        output,
        lambda y, x, kernel, **options: to_input.bind(y, kernel, shape=x.aval.shape, **options),
        lambda y, x, kernel, **options: to_kernel.bind(x, y, shape=kernel.aval.shape, **options),
    )
    _defbilinear(
        to_input,
        lambda x, y, kernel, *, shape, **options: output.bind(x, kernel, **options),
        lambda x, y, kernel, *, shape, **options: to_kernel.bind(x, y, shape=kernel.aval.shape, **options),
    )
    _defbilinear(
        to_kernel,
        lambda kernel, x, y, *, shape, **options: to_input.bind(y, kernel, shape=x.aval.shape, **options),
        lambda kernel, x, y, *, shape, **options: output.bind(x, kernel, **options),
    )

    def batched(args, dims, *, context, **options):
        with context.again():
            return (batch or join)(bind, args, dims, **options)

    def bind(x, kernel, **options):
        return output.bind(x, kernel, context=Context.now(), **options)

    _primitive_batchers[output] = batched
    _primitive_batchers[to_input] = _mapped(generic_input, input_gradient)
    _primitive_batchers[to_kernel] = _mapped(generic_kernel, kernel_gradient)
    return bind, output


def _two_operands(name: str, generic: Callable, on_cpu: Callable, shape: Callable) -> Any:
    """A primitive of two arrays of one dtype, whose result has the shape that `shape` tells."""

    def abstract(first, second, **options):
        return ShapedArray(shape(first, second, **options), first.dtype)

    def run(first, second, *, context, **options):
        output = abstract(first, second, context=context, **options)
        with context.again():
            return _choose(first, second, generic, on_cpu, output, options)

    primitive = _define(name, run, abstract, multiple_results=False)

    @functools.lru_cache(maxsize=256)
    def compiled(**params: Any) -> Callable:
        return jax.jit(functools.partial(primitive.bind, **params))

    primitive.def_impl(lambda *operands, **params: compiled(**params)(*operands))  # eager: compiled once for all calls
    return primitive


def _choose(first, second, generic: Callable, on_cpu: Callable, output: Any, options: dict) -> Any:
    cpu, default = ((lambda *args, f=f: [f(*args, **options)]) for f in (on_cpu, generic))
    return lower_per_platform(first, second, cpu=cpu, default=default, outputs=[output])[0]


def _shape_asked(*operands, shape, **options):
    return shape


def _mapped(generic: Callable, on_cpu: Callable) -> Callable:
    """The rule for `jax.vmap` of a gradient."""

    def rule(args, dims, *, context, **options):
        def one(first, second):
            output = jax.eval_shape(functools.partial(generic, **options), first, second)
            return _choose(first, second, generic, on_cpu, ShapedArray(output.shape, output.dtype), options)

        with context.again():
            return jax.vmap(one, tuple(dims))(*args), 0

    return rule


# Linear maps whose transposes are compiled apart.


class LinearMap:
    """A program of residuals, as many as `residuals` says, and of tangents, linear in these."""

    def __init__(self, program: Program, residuals: int, wrap: Callable[[Program], Callable]):
        self.program, self.residuals = program, residuals
        self._wrap = wrap
        self._transposes: dict[tuple, Callable] = {}

    def __call__(self, *operands: Any) -> list:
        """The tangents' images, as an operation with a transpose of its own."""
        return _linear_call.bind(*operands, linear=self)

    def transpose(self, residuals: Sequence[Any], cotangents: Sequence[Any], shapes: Sequence[Any]) -> Sequence[Any]:
        """The cotangents of tangents of these shapes."""
        nonzero = tuple(i for i, cotangent in enumerate(cotangents) if not isinstance(cotangent, Zero))

        def backward(residuals: tuple, cotangents: tuple) -> tuple:
            def of_nonzero(*tangents: Any) -> list:
                outputs = self.program(*residuals, *tangents)
                return [outputs[i] for i in nonzero]

            return jax.linear_transpose(of_nonzero, *shapes)([*cotangents])

        operands = tuple(residuals), tuple(cotangents[i] for i in nonzero)
        leaves = jax.tree.leaves(operands)
        signature = nonzero, tuple(map(jax.typeof, leaves))
        if signature not in self._transposes:
            self._transposes[signature] = self._wrap(trace(backward, *operands)[0])
        return self._transposes[signature](*leaves)


_linear_call = _define(
    "linear_call",
    lambda *operands, linear: linear.program(*operands),
    lambda *operands, linear: linear.program.outputs,
    multiple_results=True,
)


def _linear_transpose(cotangents: Sequence[Any], *operands: Any, linear: LinearMap) -> list:
    residuals, tangents = operands[: linear.residuals], operands[linear.residuals :]
    shapes = [jax.ShapeDtypeStruct(t.aval.shape, t.aval.dtype) for t in tangents]
    return [None] * len(residuals) + [*linear.transpose(residuals, cotangents, shapes)]


def _linear_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, linear: LinearMap) -> tuple:
    return jax.jvp(linear.program, tuple(primals), tuple(map(_instantiate_zeros, tangents)))


def _linear_batch(axis: Any, operands: Sequence[Any], dims: Sequence[Any], *, linear: LinearMap) -> tuple:
    mapped = linear.program.mapped_outputs([dim is not None for dim in dims])
    out_dims = [0 if is_mapped else None for is_mapped in mapped]
    program, _ = trace(_vmap(linear.program, axis, dims, out_dims), *operands)
    return LinearMap(program, linear.residuals, linear._wrap)(*operands), out_dims


_primitive_jvps[_linear_call] = _linear_jvp
_primitive_transposes[_linear_call] = _linear_transpose
_fancy_primitive_batchers[_linear_call] = _linear_batch


def linearize(function: Callable, *inputs: Any) -> tuple[list, Any, list, Callable]:
    """A linearisation: the outputs' leaves, what else `function` returns, residuals, and the map of these and tangents.

    `function` returns a list of outputs and auxiliary values. What `jax.linearize` gives for the linear map is a tree
    of residuals that can be called.
    """
    outputs, linear, auxiliary = jax.linearize(function, *inputs, has_aux=True)
    residuals, structure = jax.tree.flatten(linear)

    def of_tangents(*operands: Any) -> list:
        return jax.tree.unflatten(structure, operands[: len(residuals)])(*operands[len(residuals) :])

    return outputs, auxiliary, residuals, of_tangents
