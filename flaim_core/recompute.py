"""Functions whose derivative keeps the results of linear layers and batch statistics, and recomputes what is cheap.

XLA's buffers come fresh from the operating system at each call, and the first touch of each 4 KB takes 1.6 us.
Automatic differentiation keeps, for a block of ConvNeXt, 13 maps of the size of its input; the products and the input
itself are 7. On 2 cores (float32, batch 8, jax 0.10.2) a training step's intermediate arrays shrank from 837 to 300 MB
for ViT-S, 1367 to 621 for ConvNeXt-T, 3036 to 922 for MaxViT-T, its time by 13, 4 and 15 %.

`jax.checkpoint` alone does nothing of the kind on a CPU: XLA drops its barriers, then merges what is recomputed with
what was computed before. Here the whole derivative of a function is compiled apart from everything else.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive, Var, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from flaim_core.ops._isolate import isolated_on_cpu

# Says of a primitive's inputs and parameters whether its results are kept: a policy of `jax.checkpoint`.
Policy = Callable[..., bool]
nothing: Policy = jax.checkpoint_policies.nothing_saveable

_PRODUCTS = frozenset({"dense", "convolution"})  # their second operand's last axis is that of the outputs
_OTHERS = frozenset({"depthwise_convolution", "conv_general_dilated", "psum"})  # the last one sums over devices
# Sums of so few products take no longer to compute again than to write and read: 1x1 convolutions of up to 64 channels.
_FEW_PRODUCTS = 64


def costly(primitive: Primitive, *inputs: Any, **params: Any) -> bool:
    """Keeps results of linear layers, but sums of few products in one group, and sums over other axes than the last.

    What this leaves out takes no longer to compute again than to write and read. Of attention nothing is kept, neither
    its products nor its softmax's maximum and sum, and of a layer norm no statistic; of a batch norm both are.
    """
    if primitive.name in _PRODUCTS:
        return math.prod(inputs[1].shape[:-1]) > _FEW_PRODUCTS or params.get("groups", 1) > 1
    if primitive.name == "reduce_sum":
        return len(inputs[0].shape) - 1 not in params["axes"]
    return primitive.name in _OTHERS


def recomputed(function: Callable, policy: Policy = costly) -> Callable:
    """`function` of trees of arrays, whose derivative keeps its inputs and what `policy` says.

    The rest is computed again, on a CPU; elsewhere under the policy `nothing`, and XLA decides under another one.
    Derivatives of every order and `jax.vmap` work as for `function`.

    Function and derivative are each compiled apart on a CPU: XLA would compute a residual chain from its beginning
    again in each block, and keep all that it is made of (inference of ResNet-50, 8 images: 468 and 434 ms, 107 and 36
    MB of intermediate arrays).
    """
    return lambda *inputs: Recomputed(function, policy)(*inputs)


class Recomputed:
    """`recomputed(function, policy)`, traced once for all inputs of equal shapes: for use within one trace."""

    def __init__(self, function: Callable, policy: Policy):
        self._function, self._policy = function, policy
        self._known: dict = {}

    def __call__(self, *inputs: Any) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        signature = structure, tuple(map(jax.typeof, leaves))
        if signature not in self._known:
            # Traced beforehand, so that arrays which the function closes over become arguments.
            traced, outputs = _trace(lambda *leaves: self._function(*jax.tree.unflatten(structure, leaves)), leaves)
            run = _with_derivative(_of_constants_too(traced.jaxpr), self._policy)
            self._known[signature] = run, traced.consts, outputs
        run, consts, outputs = self._known[signature]
        return jax.tree.unflatten(outputs, run(*consts, *leaves))


def _trace(function: Callable, inputs: Sequence[Any]) -> tuple[ClosedJaxpr, Any]:
    """The function's program, and the structure of what it returns."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    return traced, jax.tree.structure(shapes)


def _of_constants_too(jaxpr: Jaxpr) -> ClosedJaxpr:
    """`jaxpr` with its constants for its first arguments."""
    return ClosedJaxpr(jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars]), ())


def _with_derivative(jaxpr: ClosedJaxpr, policy: Policy) -> Callable:
    """The function of flat inputs that `jaxpr` stands for."""
    known: dict[tuple, tuple] = {}

    def jvp(primals: tuple, tangents: tuple) -> tuple[list, list]:
        moving = tuple(i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero))
        if moving not in known:
            known[moving] = _linearized(jaxpr_as_fun(jaxpr), policy, moving, primals)
        forward, derivative = known[moving]
        outputs, residuals = forward(*primals)
        moved = iter(_derivative.bind(*residuals, *(tangents[i] for i in moving), linear=derivative))
        return outputs, [next(moved) if _is_smooth(y) else np.zeros(y.shape, jax.dtypes.float0) for y in outputs]

    run = jax.custom_jvp(isolated_on_cpu(jaxpr))
    run.defjvp(jvp, symbolic_zeros=True)
    return run


class _Linear:
    """A function of as many residuals as `residuals` says, and of tangents, linear in these."""

    def __init__(self, function: Callable, residuals: int):
        self.function, self.residuals = function, residuals
        self._transposes: dict[tuple, Callable] = {}

    def transpose(self, residuals: Sequence[Any], cotangents: Sequence[Any], shapes: Sequence[Any]) -> Sequence[Any]:
        """The cotangents of tangents of these shapes."""
        moving = tuple(i for i, cotangent in enumerate(cotangents) if not isinstance(cotangent, ad.Zero))

        def backward(residuals: tuple, cotangents: tuple) -> tuple:
            def of_moving(*tangents: Any) -> list:
                outputs = self.function(*residuals, *tangents)
                return [outputs[i] for i in moving]

            return jax.linear_transpose(of_moving, *shapes)([*cotangents])

        operands = tuple(residuals), tuple(cotangents[i] for i in moving)
        leaves = jax.tree.leaves(operands)
        signature = moving, tuple(map(jax.typeof, leaves))
        if signature not in self._transposes:
            self._transposes[signature] = isolated_on_cpu(jax.make_jaxpr(backward)(*operands))
        return self._transposes[signature](*leaves)


def _linearized(function: Callable, policy: Policy, moving: Sequence[int], inputs: Sequence[Any]) -> tuple:
    """What returns the function's outputs and residuals for its derivative by the `moving` inputs; that derivative."""

    def forward(*inputs: Any) -> tuple[list, Callable]:
        def of_moving(*values: Any) -> tuple[list, list]:
            mixed = [*inputs]
            for i, value in zip(moving, values):
                mixed[i] = value
            outputs = function(*mixed)
            return [y for y in outputs if _is_smooth(y)], outputs

        keeping = jax.checkpoint(
            of_moving,
            policy=policy,
            # Away from a CPU XLA may judge for itself what to recompute, but where all of it is asked.
            prevent_cse=policy is nothing,
        )
        _, linear, outputs = jax.linearize(keeping, *(inputs[i] for i in moving), has_aux=True)
        return outputs, linear

    traced, structure = _trace(forward, inputs)
    run, (outputs, residuals) = _isolated(traced.jaxpr, traced.consts), structure.children()

    def values(*inputs: Any) -> tuple[list, list]:
        flat = run(*inputs)
        return flat[: outputs.num_leaves], flat[outputs.num_leaves :]

    def tangents_of(*operands: Any) -> list:
        return residuals.unflatten(operands[: residuals.num_leaves])(*operands[residuals.num_leaves :])

    return values, _Linear(tangents_of, residuals.num_leaves)


def _isolated(jaxpr: Jaxpr, consts: Sequence[Any]) -> Callable[..., list]:
    """What `jaxpr` stands for, isolated on a CPU; its inputs that are outputs too do not go in and out, as copies."""
    jaxpr = _unrounded(jaxpr)
    own = [*dict.fromkeys(v for v in jaxpr.outvars if isinstance(v, Var) and v not in jaxpr.invars)]
    run = isolated_on_cpu(ClosedJaxpr(jaxpr.replace(outvars=own), consts))

    def evaluate(*inputs: Any) -> list:
        known = dict(zip(jaxpr.invars + own, [*inputs, *run(*inputs)]))
        return [known[v] if isinstance(v, Var) else v.val for v in jaxpr.outvars]

    return evaluate


def _unrounded(jaxpr: Jaxpr) -> Jaxpr:
    """`jaxpr` without the roundings to their own precision that `jax.checkpoint` gives to what it keeps.

    XLA makes a copy of each: 100 of 1300 ms in a training step of ResNet-50.
    """
    same: dict[Var, Any] = {}
    equations = []
    for equation in jaxpr.eqns:
        equation = equation.replace(invars=[same.get(v, v) if isinstance(v, Var) else v for v in equation.invars])
        if equation.primitive.name == "reduce_precision" and _keeps_precision(**equation.params, of=equation.invars[0]):
            same[equation.outvars[0]] = equation.invars[0]
        else:
            equations.append(equation)
    outputs = [same.get(v, v) if isinstance(v, Var) else v for v in jaxpr.outvars]
    return jaxpr.replace(eqns=equations, outvars=outputs)


def _keeps_precision(*, exponent_bits: int, mantissa_bits: int, of: Any) -> bool:
    precision = jax.numpy.finfo(of.aval.dtype)
    return (exponent_bits, mantissa_bits) == (precision.nexp, precision.nmant)


def _is_smooth(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)


# A `_Linear` map, whose transpose is isolated.
_derivative = Primitive("recomputed_derivative")
_derivative.multiple_results = True


@_derivative.def_impl
def _evaluate(*operands: Any, linear: _Linear) -> list:
    return linear.function(*operands)


@_derivative.def_abstract_eval
def _abstract(*operands: Any, linear: _Linear) -> list:
    return [jax.core.ShapedArray(y.shape, y.dtype) for y in jax.eval_shape(linear.function, *operands)]


def _transpose(cotangents: Sequence[Any], *operands: Any, linear: _Linear) -> list:
    residuals, tangents = operands[: linear.residuals], operands[linear.residuals :]
    shapes = [jax.ShapeDtypeStruct(t.aval.shape, t.aval.dtype) for t in tangents]
    return [None] * len(residuals) + [*linear.transpose(residuals, cotangents, shapes)]


def _derivative_jvp(primals: Sequence[Any], tangents: Sequence[Any], *, linear: _Linear) -> tuple:
    return jax.jvp(linear.function, primals, [*map(ad.instantiate_zeros, tangents)])


def _batch(axis: Any, operands: Sequence[Any], dims: Sequence[Any], *, linear: _Linear) -> tuple:
    if all(dim is None for dim in dims):
        outputs = _derivative.bind(*operands, linear=linear)
        return outputs, [None] * len(outputs)
    mapped = jax.vmap(linear.function, tuple(dims), axis_name=axis.name, axis_size=axis.size)
    outputs = _derivative.bind(*operands, linear=_Linear(mapped, linear.residuals))
    return outputs, [0] * len(outputs)


ad.primitive_transposes[_derivative] = _transpose
ad.primitive_jvps[_derivative] = _derivative_jvp
batching.fancy_primitive_batchers[_derivative] = _batch
mlir.register_lowering(_derivative, mlir.lower_fun(_evaluate, multiple_results=True))
