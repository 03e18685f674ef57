from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.scope import Scope, kernel


@kernel
def class_relative_position_table(
    scope: Scope, x: Float[Array, "*b n c"], *, num_heads: int, size: tuple[int, int]
) -> Float[Array, "{num_heads} t t"]:
    """Attention bias of a class token and the tokens of a map: a learned number for each head and each offset.

    `x`, the tokens, only gives the dtype. Leaf: `relative_position_bias_table`
    ((2 * height - 1) * (2 * width - 1) + 3, num_heads), for a map of `size` (height, width). The last three rows are
    for the class token: as the query, as the key, as both.
    Bao et al., "BEiT: BERT Pre-Training of Image Transformers" (2021), the authors' implementation.
    """
    rows = (2 * size[0] - 1) * (2 * size[1] - 1) + 3
    # In the dtype of the softmax.
    dtype = ops.accumulation_dtype(x)
    table = scope.param("relative_position_bias_table", (rows, num_heads), initializers.zeros, dtype=dtype)
    return ops.gather_bias(table, ops.class_relative_position_index(size))
