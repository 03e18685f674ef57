from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.checks import check_heads
from flaim_core.scope import Scope, kernel


@kernel
def rotary_frequencies(
    scope: Scope, x: Float[Array, "*b n c"], *, depth: int, num_heads: int, temperature: float = 10.0
) -> Float[Array, "2 {depth} {num_heads} f"]:
    """Learned frequencies for `ops.mixed_angles`, of each block, head and pair of channels, in float32 or wider.

    Leaf: `freqs`. Heo et al., "Rotary Position Embedding for Vision Transformer" (2024), section 3.2.
    """
    check_heads(scope, x.shape[-1], num_heads)
    shape = (2, depth, num_heads, x.shape[-1] // num_heads // 2)
    return scope.param("freqs", shape, initializers.rotary_frequencies(temperature), dtype=ops.accumulation_dtype(x))
