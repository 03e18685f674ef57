"""Rematerialisation (remat, gradient checkpointing) of blocks, which also works on a CPU.

On a CPU, `jax.checkpoint` alone has no effect: XLA removes its optimisation barriers, and common-subexpression
elimination then merges the recomputed operations with those of the forward pass. Here each block is differentiated into
programs, each of which XLA compiles on its own (`no_inline`), so that nothing can be merged across them:

    block         (*inputs) -> outputs                                            traced once for equal shapes
    forward       (*inputs) -> outputs, residuals                                 by jax.checkpoint, jax.linearize
    linear map    (*residuals, *tangents of inputs) -> tangents of outputs        by jax.linearize
    backward      (*residuals, *cotangents of outputs) -> cotangents of inputs    by jax.linear_transpose

The residuals are the inputs and the results that the policy makes saveable; backward recomputes the rest.
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
from flaim_core.tree import shape_struct

# A policy of `jax.checkpoint`: `(primitive, *avals of its inputs, **its parameters) -> whether its result is saveable`.
Policy = Callable[..., bool]
save_nothing: Policy = jax.checkpoint_policies.nothing_saveable

# Products of so few terms per output (a 1x1 convolution of 64 channels) are as fast to recompute as to write and read.
_FEW_TERMS = 64


def save_products_and_statistics(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """The default policy: linear layers, convolutions and batch statistics are saveable.

    Saveable are
    - results of linear layers and convolutions: all that are depthwise or grouped, others if an output is a sum of more
      than 64 products;
    - sums over any axes but the last, as in batch norm.

    Recomputed is everything else, such as activations, the matrix products and the softmax of attention, and sums over
    the last axis, as in layer norm. These are cheaper to recompute than to keep in memory.
    """
    if primitive in (dense_p, convolution_p):
        window = params.get("window")
        grouped = window is not None and window.groups > 1
        return math.prod(inputs[1].shape[:-1]) > _FEW_TERMS or grouped
    if primitive is _jax.reduce_sum_p:
        return len(inputs[0].shape) - 1 not in params["axes"]
    return primitive is depthwise_p or primitive is _jax.conv_general_dilated_p


def remat(function: Callable, policy: Policy = save_products_and_statistics) -> Callable:
    """`function` (pytrees of arrays to a pytree of arrays) with a derivative that recomputes.

    The derivative saves the inputs and the results that `policy` makes saveable. Values, derivatives of any order and
    `jax.vmap` are as for `function`.

    Meant for programs on a single CPU device. On other platforms, `save_nothing` recomputes as well; under any other
    policy, XLA may keep values instead of recomputing them.
    """
    return lambda *inputs: Remat(function, policy)(*inputs)


class Remat:
    """`remat(function, policy)` that traces `function` only once for all calls with equal shapes.

    To be used within one trace: what `function` closes over is an input of the traced program, and may be a tracer.
    """

    def __init__(self, function: Callable, policy: Policy):
        self._function, self._policy = function, policy
        self._known: dict = {}

    def __call__(self, *inputs: Any) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        signature = structure, tuple(map(jax.typeof, leaves))
        if signature not in self._known:
            # Arrays that the function closes over become constants of the program, then inputs: so they get gradients.
            program, outputs = trace(lambda *leaves: self._function(*jax.tree.unflatten(structure, leaves)), *leaves)
            run = _with_derivative(program.with_constants_as_inputs(), self._policy)
            self._known[signature] = run, program.consts, outputs
        run, consts, outputs = self._known[signature]
        return jax.tree.unflatten(outputs, run(*consts, *leaves))


def _with_derivative(program: Program, policy: Policy) -> Callable:
    """`program` with the derivative that the module docstring describes; unchanged if it has effects (`psum`, say)."""
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
    """The two parts of the derivative for inputs of which those with the indices `nonzero` have nonzero tangents.

    Returns:
        `values`: `(*inputs) -> outputs, residuals`.
        `linear`: `(*residuals, *nonzero tangents) -> tangents` of the outputs that are floating-point.
    """
    linear_maps: list[Callable] = []

    def forward(*inputs: Any) -> tuple[list, list]:
        def of_nonzero(*values: Any) -> tuple[list, list]:
            all_inputs = [*inputs]
            for i, value in zip(nonzero, values):
                all_inputs[i] = value
            outputs = program(*all_inputs)
            return [y for y in outputs if _is_inexact(y)], outputs

        # `prevent_cse` matters on other platforms than the CPU: there it forces XLA to recompute.
        saving = jax.checkpoint(of_nonzero, policy=policy, prevent_cse=policy is save_nothing)
        outputs, residuals, linear_map = _jax.linearize(saving, *(inputs[i] for i in nonzero))
        linear_maps.append(linear_map)
        return outputs, residuals

    traced, _ = trace(forward, *inputs)
    run, count = _compiled_separately(traced), len(program.outputs)
    residuals = traced.outputs[count:]
    tangents = [inputs[i] for i in nonzero]
    linear, _ = trace(linear_maps[-1], *map(shape_struct, residuals), *map(shape_struct, tangents))

    def values(*inputs: Any) -> tuple[list, list]:
        flat = run(*inputs)
        return flat[:count], flat[count:]

    return values, _LinearMap(linear, len(residuals))


class _LinearMap:
    """A program `(*residuals, *tangents) -> tangents` that is linear in the tangents; `residuals` is their number."""

    def __init__(self, program: Program, residuals: int):
        self.program, self.residuals = program, residuals
        self._transposes: dict[tuple, Callable] = {}

    def __call__(self, *operands: Any) -> list:
        """Apply the map, as a primitive whose transpose is compiled on its own."""
        return _linear_call.bind(*operands, linear=self)

    def transpose(self, residuals: Sequence[Any], cotangents: Sequence[Any], shapes: Sequence[Any]) -> Sequence[Any]:
        """The cotangents of the inputs, from those of the outputs; `shapes` are the inputs'."""
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
    shapes = [shape_struct(t.aval) for t in tangents]
    return [None] * len(residuals) + [*linear.transpose(residuals, cotangents, shapes)]


def _linear_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, linear: _LinearMap) -> tuple:
    return jax.jvp(linear.program, tuple(primals), tuple(map(_jax.instantiate_zeros, tangents)))


def _linear_batch(axis: Any, operands: Sequence[Any], dims: Sequence[Any], *, linear: _LinearMap) -> tuple:
    mapped = linear.program.mapped_outputs([dim is not None for dim in dims])
    out_dims = [0 if is_mapped else None for is_mapped in mapped]
    program, _ = trace(_jax.vmap(linear.program, axis, dims, out_dims), *operands)
    return _LinearMap(program, linear.residuals)(*operands), out_dims


_linear_call = _jax.define_primitive(
    "linear_call",
    lambda *operands, linear: linear.program(*operands),
    lambda *operands, linear: linear.program.outputs,
    jvp=_linear_jvp,
    transpose=_linear_transpose,
    batch=_linear_batch,
)


def _compiled_separately(program: Program) -> Callable[..., list]:
    """`program`, compiled on its own on a CPU.

    Outputs that are inputs (an input that is a residual too) are passed on outside of it: XLA would copy them.
    """
    jaxpr = _without_roundings(program.jaxpr)
    own = [*dict.fromkeys(v for v in jaxpr.outvars if isinstance(v, _jax.Var) and v not in jaxpr.invars)]
    run = no_inline_program(Program(jaxpr.replace(outvars=own), program.consts))

    def evaluate(*inputs: Any) -> list:
        known = dict(zip([*jaxpr.invars, *own], [*inputs, *run(*inputs)]))
        return [known[v] if isinstance(v, _jax.Var) else v.val for v in jaxpr.outvars]

    return evaluate


def _without_roundings(jaxpr: Any) -> Any:
    """`jaxpr` without the `reduce_precision` operations that `jax.checkpoint` applies to the values that it saves.

    They round to the dtype's own precision, so they change nothing, but XLA for CPUs makes a copy for each.
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
