"""Grouped convolutions on a CPU: narrow groups are merged into dense parts, whose kernels are zero off the diagonal."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Input channels of the parts: wide enough for a vectorised inner loop, narrow enough that the zeros multiplied do not
# outweigh it.
_WIDTH = 32
# More convolutions than this compile as a loop: they take a little longer to run and much less to compile.
_MANY_PARTS = 16


def groups_in_part(per_group: int, groups: int) -> int:
    """How many groups of so many input channels make one part."""
    joined = max(1, min(groups, _WIDTH // per_group))
    while groups % joined:
        joined -= 1
    return joined


def to_parts(kernel: Float[Array, "kh kw c_group f"], groups: int) -> Float[Array, "parts kh kw c_part f_part"]:
    """A grouped kernel as those of dense parts, zero where input and output belong to different groups."""
    height, width, per_group, features = kernel.shape
    joined = groups_in_part(per_group, groups)
    blocks = kernel.reshape(height, width, per_group, groups // joined, joined, features // groups)
    kernels = jnp.einsum("hwipjo,jk->phwkijo", blocks, jnp.eye(joined, dtype=kernel.dtype))
    return kernels.reshape(groups // joined, height, width, joined * per_group, -1)


def from_parts(
    kernels: Float[Array, "parts kh kw c_part f_part"], per_group: int, groups: int
) -> Float[Array, "kh kw c_group f"]:
    """The transpose of `to_parts`."""
    parts, height, width, _, features = kernels.shape
    joined = groups // parts
    blocks = kernels.reshape(parts, height, width, joined, per_group, joined, features // joined)
    return jnp.einsum("phwjijo->hwipjo", blocks).reshape(height, width, per_group, -1)


def by_parts(
    convolve: Callable, x: Float[Array, "b h w c"], kernels: Float[Array, "parts kh kw c_part f_part"]
) -> Float[Array, "b h2 w2 f"]:
    """`convolve(channels of x, kernel)` for each part, side by side."""
    parts = len(kernels)
    if parts <= _MANY_PARTS:
        return jnp.concatenate(list(map(convolve, jnp.split(x, parts, axis=-1), kernels)), axis=-1)
    images = jnp.moveaxis(x.reshape(*x.shape[:3], parts, -1), 3, 0)
    outputs = lax.map(lambda pair: convolve(*pair), (images, kernels))
    return jnp.moveaxis(outputs, 0, 3).reshape(*outputs.shape[1:4], -1)
