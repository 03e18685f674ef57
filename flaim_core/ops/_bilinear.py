"""Primitives for functions that are bilinear in their two operands, such as matrix products and convolutions.

A bilinear function `y = f(x, kernel)` has two gradients for a cotangent `dy`, which are bilinear too:

    output            f(x, kernel)   -> y
    input gradient    g(dy, kernel)  -> dx         transposes: f in dy, h in kernel
    kernel gradient   h(x, dy)       -> dkernel    transposes: g in x, f in dy

Each of the three is a primitive with an implementation of its own for CPUs. Since the transposes of each are the other
two, derivatives of any order consist of these three primitives.
"""

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
    """Define the three primitives of a bilinear function.

    Other platforms than the CPU get `generic` and its transposes.

    Args:
        name: Of the output's primitive; the gradients are `<name>_input_gradient` and `<name>_kernel_gradient`.
        generic: `generic(x, kernel, **options) -> y`, the function in public operations. Options are hashable.
        shape: `shape(x, kernel, **options)`, the shape of `y`.
        on_cpu: `on_cpu(x, kernel, **options) -> y`, the implementation for CPUs.
        input_gradient: `input_gradient(dy, kernel, shape=x.shape, **options) -> dx`, for CPUs.
        kernel_gradient: `kernel_gradient(x, dy, shape=kernel.shape, **options) -> dkernel`, for CPUs.
        batch: `batch(bind, operands, dims, **options) -> y, its mapped axis`, the rule for `jax.vmap`. By default a
            mapped axis of `x` alone is merged with the batch axis, and mapped kernels use `generic`.

    Returns:
        The function `(x, kernel, **options) -> y`, and the output's primitive.
    """

    def output_shape(x, kernel, *, context, **options):
        return shape(x, kernel, **options)

    def generic_input(y, kernel, *, shape, **options):
        x = jax.ShapeDtypeStruct(shape, y.dtype)
        return jax.linear_transpose(lambda x: generic(x, kernel, **options), x)(y)[0]

    def generic_kernel(x, y, *, shape, **options):
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda kernel: generic(x, kernel, **options), kernel)(y)[0]

    def merge_into_batch(bind, args, dims, **options):
        (x, kernel), (x_dim, kernel_dim) = args, dims
        if kernel_dim is not None:
            return jax.vmap(functools.partial(generic, **options), tuple(dims))(x, kernel), 0
        x = jnp.moveaxis(x, x_dim, 0)
        y = bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0

    def batched(axis, args, dims, *, context, **options):
        with context.restored():
            return (batch or merge_into_batch)(bind, args, dims, **options)

    output = _two_operands(name, generic, on_cpu, output_shape, batched)
    to_input = _two_operands(f"{name}_input_gradient", generic_input, input_gradient, _shape_option)
    to_kernel = _two_operands(f"{name}_kernel_gradient", generic_kernel, kernel_gradient, _shape_option)
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
        return output.bind(x, kernel, context=Context.current(), **options)

    return bind, output


def _two_operands(
    name: str, generic: Callable, on_cpu: Callable, shape: Callable, batch: Callable | None = None
) -> Any:
    """A primitive with two operands of the same dtype; `shape(first, second, **options)` is its result's shape."""

    def abstract(first, second, **options):
        return _jax.ShapedArray(shape(first, second, **options), first.dtype)

    def run(first, second, *, context, **options):
        output = abstract(first, second, context=context, **options)
        with context.restored():
            return _choose(first, second, generic, on_cpu, output, options)

    batch = batch or _mapped(generic, on_cpu)
    primitive = _jax.define_primitive(name, run, abstract, multiple_results=False, batch=batch)

    @functools.lru_cache(maxsize=256)
    def compiled(**params: Any) -> Callable:
        return jax.jit(functools.partial(primitive.bind, **params))

    def impl(first, second, **params):
        """An eager call, which is compiled (unless jit is disabled) and cached."""
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return generic(first, second, **{name: value for name, value in params.items() if name != "context"})
        return compiled(**params)(first, second)

    primitive.def_impl(impl)
    return primitive


def _choose(first, second, generic: Callable, on_cpu: Callable, output: Any, options: dict) -> Any:
    cpu, default = ((lambda *args, f=f: [f(*args, **options)]) for f in (on_cpu, generic))
    return _jax.lower_per_platform(first, second, cpu=cpu, default=default, outputs=[output])[0]


def _shape_option(*operands, shape, **options):
    return shape


def _mapped(generic: Callable, on_cpu: Callable) -> Callable:
    """The rule for `jax.vmap` of a gradient: map both implementations."""

    def rule(axis, args, dims, *, context, **options):
        def one(first, second):
            output = jax.eval_shape(functools.partial(generic, **options), first, second)
            return _choose(first, second, generic, on_cpu, _jax.ShapedArray(output.shape, output.dtype), options)

        with context.restored():
            return jax.vmap(one, tuple(dims))(*args), 0

    return rule
