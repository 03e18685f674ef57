"""Bilinear primitives: functions of an image and a kernel whose gradients are primitives too."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flaim_core import _jax
from flaim_core._jax import Context


def bilinear(
    name: str,
    generic: Callable,
    *,
    shape: Callable,
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
        shape: `shape(x, kernel, **options)`, that of the result.
        on_cpu: The same as a CPU runs it fastest.
        input_gradient: `input_gradient(cotangent, kernel, shape=..., **options)`, of `shape`, on a CPU; elsewhere the
            transpose of `generic`.
        kernel_gradient: `kernel_gradient(x, cotangent, shape=..., **options)`, likewise.
        batch: `batch(bind, operands, dims, **options)`, the rule for `jax.vmap`; without one, mapped images join the
            batch, and mapped kernels are left to `generic`.
    """

    def output_shape(x, kernel, *, context, **options):
        return shape(x, kernel, **options)

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
        x = jnp.moveaxis(x, x_dim, 0)
        y = bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0

    def batched(axis, args, dims, *, context, **options):
        with context.again():
            return (batch or join)(bind, args, dims, **options)

    output = _two_operands(name, generic, on_cpu, output_shape, batched)
    to_input = _two_operands(f"{name}_input_gradient", generic_input, input_gradient, _shape_asked)
    to_kernel = _two_operands(f"{name}_kernel_gradient", generic_kernel, kernel_gradient, _shape_asked)
    _jax.defbilinear(
        output,
        lambda y, x, kernel, **options: to_input.bind(y, kernel, shape=x.aval.shape, **options),
        lambda y, x, kernel, **options: to_kernel.bind(x, y, shape=kernel.aval.shape, **options),
    )
    _jax.defbilinear(
        to_input,
        lambda x, y, kernel, *, shape, **options: output.bind(x, kernel, **options),
        lambda x, y, kernel, *, shape, **options: to_kernel.bind(x, y, shape=kernel.aval.shape, **options),
    )
    _jax.defbilinear(
        to_kernel,
        lambda kernel, x, y, *, shape, **options: to_input.bind(y, kernel, shape=x.aval.shape, **options),
        lambda kernel, x, y, *, shape, **options: output.bind(x, kernel, **options),
    )

    def bind(x, kernel, **options):
        return output.bind(x, kernel, context=Context.now(), **options)

    return bind, output


def _two_operands(
    name: str, generic: Callable, on_cpu: Callable, shape: Callable, batch: Callable | None = None
) -> Any:
    """A primitive of two arrays of one dtype, whose result has the shape that `shape` tells."""

    def abstract(first, second, **options):
        return _jax.ShapedArray(shape(first, second, **options), first.dtype)

    def run(first, second, *, context, **options):
        output = abstract(first, second, context=context, **options)
        with context.again():
            return _choose(first, second, generic, on_cpu, output, options)

    batch = batch or _mapped(generic, on_cpu)
    primitive = _jax.define(name, run, abstract, multiple_results=False, batch=batch)

    @functools.lru_cache(maxsize=256)
    def compiled(**params: Any) -> Callable:
        return jax.jit(functools.partial(primitive.bind, **params))

    def impl(first, second, **params):
        """An eager call: compiled once for all calls, unless jit is disabled."""
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return generic(first, second, **{name: value for name, value in params.items() if name != "context"})
        return compiled(**params)(first, second)

    primitive.def_impl(impl)
    return primitive


def _choose(first, second, generic: Callable, on_cpu: Callable, output: Any, options: dict) -> Any:
    cpu, default = ((lambda *args, f=f: [f(*args, **options)]) for f in (on_cpu, generic))
    return _jax.lower_per_platform(first, second, cpu=cpu, default=default, outputs=[output])[0]


def _shape_asked(*operands, shape, **options):
    return shape


def _mapped(generic: Callable, on_cpu: Callable) -> Callable:
    """The rule for `jax.vmap` of a gradient."""

    def rule(axis, args, dims, *, context, **options):
        def one(first, second):
            output = jax.eval_shape(functools.partial(generic, **options), first, second)
            return _choose(first, second, generic, on_cpu, _jax.ShapedArray(output.shape, output.dtype), options)

        with context.again():
            return jax.vmap(one, tuple(dims))(*args), 0

    return rule
