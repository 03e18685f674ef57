"""What keeps XLA on a CPU from a fusion that it compiles wrongly."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_jvp
def fusion_boundary(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, a norm's or softmax's statistic, whose derivative is not fused with that of what uses it.

    XLA for CPUs in jaxlib 0.10.1 and 0.10.2 compiles `g + jnp.sum(x * g, -1, keepdims=True)` wrongly for `g` of shape
    `(k, n, c)` and `x` of `(1, n, c)`, from 65536 elements on, when YNNPACK takes all of it as one fusion. A norm's
    pullback, mapped over `k` cotangents as in `jax.jacrev`, is of this kind. YNNPACK has no `reduce_precision`, which
    to the array's own precision changes nothing, and costs nothing on an array that is a sum.
    """
    return x


@fusion_boundary.defjvp
def _fusion_boundary_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (tangent,) = primals, tangents
    precision = jnp.finfo(tangent.dtype)
    return x, lax.reduce_precision(tangent, precision.nexp, precision.nmant)
