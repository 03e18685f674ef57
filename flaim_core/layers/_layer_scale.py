from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.scope import Scope, kernel


@kernel
def layer_scale(
    scope: Scope, x: Float[Array, "*b c"], *, init_value: float = 1e-5, name: str = "gamma"
) -> Float[Array, "*b c"]:
    """Multiply each channel by a leaf, `gamma` unless `name` is given.

    Touvron et al., "Going Deeper with Image Transformers" (2021).
    """
    gamma = scope.param(name, (x.shape[-1],), initializers.constant(init_value))
    return x * ops.per_channel(gamma, x)
