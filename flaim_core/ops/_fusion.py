"""A workaround for a bug in XLA for CPUs: a fusion that is compiled to wrong code."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_jvp
def fusion_boundary(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, a statistic of a norm or a softmax. XLA cannot fuse its derivative with that of operations that use it.

    XLA for CPUs in jaxlib 0.10.1 and 0.10.2 compiles `g + jnp.sum(x * g, -1, keepdims=True)` to wrong code for `g` of
    shape `(k, n, c)` and `x` of shape `(1, n, c)` with 65536 elements or more, if it passes the whole expression to
    YNNPACK as one fusion. A norm's pullback mapped over `k` cotangents, as in `jax.jacrev`, has this form. Therefore
    the tangent goes through a `reduce_precision` to its own precision. This changes no number, but YNNPACK does not
    support it, so the fusion ends there. It is cheap because a statistic is small.
    """
    return x


@fusion_boundary.defjvp
def _fusion_boundary_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    precision = jnp.finfo(tangent.dtype)
    return x, lax.reduce_precision(tangent, precision.nexp, precision.nmant)
