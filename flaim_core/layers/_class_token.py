import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.scope import Scope, kernel


@kernel
def class_token(scope: Scope, x: Float[Array, "b n c"], *, leaf: str = "cls_token") -> Float[Array, "b m c"]:
    """Put a learned token before the others: `m = n + 1`. Leaf: `leaf`, of shape (1, 1, c).

    Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.1.
    """
    token = scope.param(leaf, (1, 1, x.shape[-1]), initializers.normal(1e-6))
    return jnp.concatenate([ops.repeat_over_batch(token, x), x], axis=1)
