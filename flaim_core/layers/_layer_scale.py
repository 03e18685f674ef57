from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.ops import per_channel
from flaim_core.scope import Scope, kernel


@kernel
def layer_scale(scope: Scope, x: Float[Array, "*b c"], *, init_value: float = 1e-5) -> Float[Array, "*b c"]:
    """Multiply each channel by the leaf `gamma`. Touvron et al., "Going Deeper with Image Transformers" (2021)."""
    return x * per_channel(scope.param("gamma", (x.shape[-1],), initializers.constant(init_value)), x)
