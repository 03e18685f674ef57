"""The matrix product of a dense layer."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from flaim_core.lowering import for_single_cpu, is_abstract_evaluation
from flaim_core.ops._bilinear import bilinear
from flaim_core.ops._no_inline import no_inline

Shape = tuple[int, ...]


def dense(x: Float[Array, "*b c"], kernel: Float[Array, "c f"]) -> Float[Array, "*b f"]:
    """`x @ kernel`."""
    dtype = jnp.result_type(x.dtype, kernel.dtype)
    if is_abstract_evaluation():
        return jnp.zeros((*x.shape[:-1], kernel.shape[1]), dtype)
    x, kernel = (a if a.dtype == dtype else a.astype(dtype) for a in (x, kernel))
    return _dense(x, kernel) if for_single_cpu(x, kernel) else _product(x, kernel)


def _product(x: Array, kernel: Array) -> Array:
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _input_gradient(cotangent: Array, kernel: Array, *, shape: Shape) -> Array:
    return lax.dot_general(cotangent, kernel, (((cotangent.ndim - 1,), (1,)), ((), ())))


def _kernel_gradient(x: Array, cotangent: Array, *, shape: Shape) -> Array:
    # XLA for CPUs transposes the first operand, so the narrower of the two goes first.
    rows = x.reshape(-1, shape[0]), cotangent.reshape(-1, shape[1])
    if shape[0] <= shape[1]:
        return no_inline(_product_over_rows)(*rows)
    return no_inline(_product_over_rows)(*rows[::-1]).T


def _product_over_rows(first: Array, second: Array) -> Array:
    return lax.dot_general(first, second, (((0,), (0,)), ((), ())))


def _batch(bind: Any, operands: tuple, dims: tuple) -> tuple[Array, int]:
    (x, kernel), (x_dim, kernel_dim) = operands, dims
    if kernel_dim is None:
        return bind(jnp.moveaxis(x, x_dim, 0), kernel), 0
    return jax.vmap(_product, dims)(x, kernel), 0


_dense, dense_p = bilinear(
    "dense",
    _product,
    shape=lambda x, kernel: (*x.shape[:-1], kernel.shape[1]),
    on_cpu=_product,
    input_gradient=_input_gradient,
    kernel_gradient=_kernel_gradient,
    batch=_batch,
)
