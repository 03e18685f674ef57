import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._mlp import relu
from flaim_core.scope import Scope, kernel


@kernel
def star_relu(
    scope: Scope, x: Float[Array, "*b c"], *, scale_init: float = 1.0, bias_init: float = 0.0
) -> Float[Array, "*b c"]:
    """`scale * relu(x) ** 2 + bias` with two learned numbers. Leaves: `scale` and `bias`, of shape (1,).

    Yu et al., "MetaFormer Baselines for Vision" (2022), section 3.2. With standard normal inputs the output has mean 0
    and variance 1 for a scale of 0.8944 and a bias of -0.4472.
    """
    scale = scope.param("scale", (1,), initializers.constant(scale_init))[0]
    bias = scope.param("bias", (1,), initializers.constant(bias_init))[0]
    return scale * jnp.square(relu(x)) + bias
