from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.checks import require_fixed
from flaim_core.scope import Scope, kernel


@kernel
def position_embedding(scope: Scope, x: Float[Array, "b n c"], *, leaf: str = "pos_embed") -> Float[Array, "b n c"]:
    """Add a learned vector to each token. Leaf: `leaf`, of shape (1, n, c).

    Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), section 3.1.
    """
    require_fixed(scope, leaf, x.shape[1:2])
    return x + scope.param(leaf, (1, *x.shape[1:]), initializers.truncated_normal(0.02))
