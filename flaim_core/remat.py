"""Blocks whose derivative keeps the results of linear layers and of batch statistics, and recomputes what is cheap.

    block(params, x)  -> jaxpr                      traced once for inputs of equal shapes
    jaxpr             -> values                     inputs -> outputs and residuals, by jax.linearize
                      -> linear map                 residuals, tangents of inputs -> tangents of outputs
    linear map        -> transpose                  residuals, cotangents of outputs -> cotangents of inputs
    each of these is compiled apart from everything else (no_inline) on a CPU

`jax.checkpoint` alone recomputes nothing on a CPU: XLA drops its barriers, then merges what is recomputed with what was
computed before. Compiled apart, the transpose cannot be merged with the values.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero

from flaim_core import _jax
from flaim_core._jax import Program, trace
from flaim_core.ops._dense import dense_p
from flaim_core.ops._no_inline import no_inline_program
from flaim_core.ops.conv.primitive import convolution_p, depthwise_p

# Says of an operation, its inputs and parameters, whether its results are saved: a policy of `jax.checkpoint`.
Policy = Callable[..., bool]
save_nothing: Policy = jax.checkpoint_policies.nothing_saveable

# Sums of so few products take no longer to compute again than to write and read: 1x1 convolutions of up to 64 channels.
_FEW_PRODUCTS = 64


def save_products_and_statistics(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """Saves results of linear layers and convolutions, and sums over other axes than the last.

    Not saved are sums of few products without groups; nothing of attention, neither its products nor its softmax's
    maximum and sum; no statistic of a layer norm, which is a sum over the last axis. Those of a batch norm are.
    """
    if primitive in (dense_p, convolution_p):
        window = params.get("window")
        grouped = window is not None and window.groups > 1
        return math.prod(inputs[1].shape[:-1]) > _FEW_PRODUCTS or grouped
    if primitive is _jax.reduce_sum_p:
        return len(inputs[0].shape) - 1 not in params["axes"]
    return primitive is depthwise_p or primitive is _jax.conv_general_dilated_p


def remat(function: Callable, policy: Policy = save_products_and_statistics) -> Callable:
    """`function` of trees of arrays, whose derivative saves its inputs and what `policy` says, and recomputes the rest.

    For a CPU that runs the program by itself; under the policy `save_nothing` it recomputes on other platforms too,
    under another one XLA decides there. Derivatives of every order and `jax.vmap` work as for `function`.
    """
    return lambda *inputs: Remat(function, policy)(*inputs)


class Remat:
    """`remat(function, policy)`, traced once for all inputs of equal shapes: for use within one trace."""

    def __init__(self, function: Callable, policy: Policy):
        self._function, self._policy = function, policy
        self._known: dict = {}

    def __call__(self, *inputs: Any) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        signature = structure, tuple(map(jax.typeof, leaves))
        if signature not in self._known:
            # Traced beforehand, so that arrays which the function closes over become inputs.
            program, outputs = trace(lambda *leaves: self._function(*jax.tree.unflatten(structure, leaves)), *leaves)
            run = _with_derivative(program.with_constants_as_inputs(), self._policy)
            self._known[signature] = run, program.consts, outputs
        run, consts, outputs = self._known[signature]
        return jax.tree.unflatten(outputs, run(*consts, *leaves))


def _with_derivative(program: Program, policy: Policy) -> Callable:
    """A function of flat inputs that runs `program` and is differentiated as the module docstring says.

    A program with effects, sums over a mapped axis among them, is left to JAX.
    """
    if program.has_effects:
        return program
    known: dict[tuple, tuple] = {}

    def jvp(primals: tuple, tangents: tuple) -> tuple[list, list]:
        nonzero = tuple(i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero))
        if nonzero not in known:
            known[nonzero] = _linearized(program, policy, nonzero, primals)
        values, linear = known[nonzero]
        outputs, residuals = values(*primals)
        found = iter(linear(*residuals, *(tangents[i] for i in nonzero)))
        return outputs, [next(found) if _is_inexact(y) else np.zeros(y.shape, jax.dtypes.float0) for y in outputs]

    run = jax.custom_jvp(no_inline_program(program))
    run.defjvp(jvp, symbolic_zeros=True)
    return run


def _linearized(program: Program, policy: Policy, nonzero: Sequence[int], inputs: Sequence[Any]) -> tuple:
    """Outputs and residuals, as a function of the inputs; and the linear map of residuals and `nonzero` tangents."""
    map_of: list[Callable] = []

    def forward(*inputs: Any) -> tuple[list, list]:
        def of_nonzero(*values: Any) -> tuple[list, list]:
            mixed = [*inputs]
            for i, value in zip(nonzero, values):
                mixed[i] = value
            outputs = program(*mixed)
            return [y for y in outputs if _is_inexact(y)], outputs

        # Away from a CPU XLA may judge for itself what to recompute, unless all of it is asked for.
        saving = jax.checkpoint(of_nonzero, policy=policy, prevent_cse=policy is save_nothing)
        outputs, residuals, of_tangents = _jax.linearize(saving, *(inputs[i] for i in nonzero))
        map_of.append(of_tangents)
        return outputs, residuals

    traced, _ = trace(forward, *inputs)
    run, count = _compiled_apart(traced), len(program.outputs)
    residuals = traced.outputs[count:]
    tangents = [inputs[i] for i in nonzero]
    linear, _ = trace(map_of[-1], *map(_struct, residuals), *map(_struct, tangents))

    def values(*inputs: Any) -> tuple[list, list]:
        flat = run(*inputs)
        return flat[:count], flat[count:]

    return values, _LinearMap(linear, len(residuals))


class _LinearMap:
    """A program of residuals, as many as `residuals` says, and of tangents, linear in these."""

    def __init__(self, program: Program, residuals: int):
        self.program, self.residuals = program, residuals
        self._transposes: dict[tuple, Callable] = {}

    def __call__(self, *operands: Any) -> list:
        """The tangents' images, as an operation with a transpose of its own."""
        return _linear_call.bind(*operands, linear=self)

    def transpose(self, residuals: Sequence[Any], cotangents: Sequence[Any], shapes: Sequence[Any]) -> Sequence[Any]:
        """The cotangents of tangents of these shapes."""
        nonzero = tuple(i for i, cotangent in enumerate(cotangents) if not isinstance(cotangent, _jax.Zero))

        def backward(residuals: tuple, cotangents: tuple) -> tuple:
            def of_nonzero(*tangents: Any) -> list:
                outputs = self.program(*residuals, *tangents)
                return [outputs[i] for i in nonzero]

            return jax.linear_transpose(of_nonzero, *shapes)([*cotangents])

        operands = tuple(residuals), tuple(cotangents[i] for i in nonzero)
        leaves = jax.tree.leaves(operands)
        signature = nonzero, tuple(map(jax.typeof, leaves))
        if signature not in self._transposes:
            self._transposes[signature] = no_inline_program(trace(backward, *operands)[0])
        return self._transposes[signature](*leaves)


def _linear_transpose(cotangents: Sequence[Any], *operands: Any, linear: _LinearMap) -> list:
    residuals, tangents = operands[: linear.residuals], operands[linear.residuals :]
    shapes = [jax.ShapeDtypeStruct(t.aval.shape, t.aval.dtype) for t in tangents]
    return [None] * len(residuals) + [*linear.transpose(residuals, cotangents, shapes)]


def _linear_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, linear: _LinearMap) -> tuple:
    return jax.jvp(linear.program, tuple(primals), tuple(map(_jax.instantiate_zeros, tangents)))


def _linear_batch(axis: Any, operands: Sequence[Any], dims: Sequence[Any], *, linear: _LinearMap) -> tuple:
    mapped = linear.program.mapped_outputs([dim is not None for dim in dims])
    out_dims = [0 if is_mapped else None for is_mapped in mapped]
    program, _ = trace(_jax.vmap(linear.program, axis, dims, out_dims), *operands)
    return _LinearMap(program, linear.residuals)(*operands), out_dims


_linear_call = _jax.define(
    "linear_call",
    lambda *operands, linear: linear.program(*operands),
    lambda *operands, linear: linear.program.outputs,
    jvp=_linear_jvp,
    transpose=_linear_transpose,
    batch=_linear_batch,
)


def _struct(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _compiled_apart(program: Program) -> Callable[..., list]:
    """`program`, compiled apart on a CPU; inputs that are residuals too do not go in and come out, as copies."""
    jaxpr = _without_roundings(program.jaxpr)
    own = [*dict.fromkeys(v for v in jaxpr.outvars if isinstance(v, _jax.Var) and v not in jaxpr.invars)]
    run = no_inline_program(Program(jaxpr.replace(outvars=own), program.consts))

    def evaluate(*inputs: Any) -> list:
        known = dict(zip([*jaxpr.invars, *own], [*inputs, *run(*inputs)]))
        return [known[v] if isinstance(v, _jax.Var) else v.val for v in jaxpr.outvars]

    return evaluate


def _without_roundings(jaxpr: Any) -> Any:
    """`jaxpr` without the roundings to their own precision that `jax.checkpoint` gives to what it saves.

    XLA on a CPU makes a copy of each.
    """
    same: dict[Any, Any] = {}
    equations = []
    for equation in jaxpr.eqns:
        equation = equation.replace(invars=[same.get(v, v) if isinstance(v, _jax.Var) else v for v in equation.invars])
        if equation.primitive is _jax.reduce_precision_p and _keeps_precision(equation):
            same[equation.outvars[0]] = equation.invars[0]
        else:
            equations.append(equation)
    outputs = [same.get(v, v) if isinstance(v, _jax.Var) else v for v in jaxpr.outvars]
    return jaxpr.replace(eqns=equations, outvars=outputs)


def _keeps_precision(equation: Any) -> bool:
    own = jax.numpy.finfo(equation.invars[0].aval.dtype)
    return (equation.params["exponent_bits"], equation.params["mantissa_bits"]) == (own.nexp, own.nmant)


def _is_inexact(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)
