"""Grouped convolution on a CPU, as a few dense convolutions.

Narrow groups are merged into parts. A part is a dense convolution with a block-diagonal kernel: it has a block for each
of its groups and is zero where input and output channel belong to different groups.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Input channels of a part: enough for vectorised inner loops, and not so many that multiplying by zeros costs more.
_WIDTH = 32
# More parts than this run in a loop, which is a little slower but compiles much faster.
_MAX_UNROLLED = 16


def groups_in_part(per_group: int, groups: int) -> int:
    """How many of the `groups`, of `per_group` input channels each, are merged into a part."""
    joined = max(1, min(groups, _WIDTH // per_group))
    while groups % joined:
        joined -= 1
    return joined


def to_parts(kernel: Float[Array, "kh kw c_group f"], groups: int) -> Float[Array, "parts kh kw c_part f_part"]:
    """The dense, block-diagonal kernels of the parts, from a grouped kernel."""
    height, width, per_group, features = kernel.shape
    joined = groups_in_part(per_group, groups)
    blocks = kernel.reshape(height, width, per_group, groups // joined, joined, features // groups)
    kernels = jnp.einsum("hwipjo,jk->phwkijo", blocks, jnp.eye(joined, dtype=kernel.dtype))
    return kernels.reshape(groups // joined, height, width, joined * per_group, -1)


def from_parts(
    kernels: Float[Array, "parts kh kw c_part f_part"], per_group: int, groups: int
) -> Float[Array, "kh kw c_group f"]:
    """The transpose of `to_parts`, for gradients."""
    parts, height, width, _, features = kernels.shape
    joined = groups // parts
    blocks = kernels.reshape(parts, height, width, joined, per_group, joined, features // joined)
    return jnp.einsum("phwjijo->hwipjo", blocks).reshape(height, width, per_group, -1)


def by_parts(
    convolve: Callable, x: Float[Array, "b h w c"], kernels: Float[Array, "parts kh kw c_part f_part"]
) -> Float[Array, "b h2 w2 f"]:
    """`convolve(the part's channels of x, its kernel)` for each part; the outputs' channels are concatenated."""
    parts = len(kernels)
    if parts <= _MAX_UNROLLED:
        return jnp.concatenate(list(map(convolve, jnp.split(x, parts, axis=-1), kernels)), axis=-1)
    images = jnp.moveaxis(x.reshape(*x.shape[:3], parts, -1), 3, 0)
    outputs = lax.map(lambda pair: convolve(*pair), (images, kernels))
    return jnp.moveaxis(outputs, 0, 3).reshape(*outputs.shape[1:4], -1)
