"""Window and grid partitions of a feature map, masks for shifted windows, and indices of relative positions."""

import functools

import numpy as np
from jaxtyping import Array, Float, Int

from flaim_core.ops._broadcast import merge_axes, split_axis
from flaim_core.ops._views import Pair, Sizes


def _check_divisible(size: Sizes, window: Pair, what: str) -> None:
    if size[0] % window[0] or size[1] % window[1]:
        raise ValueError(
            f"a feature map of {size[0]}x{size[1]} does not divide into {what} of {window[0]}x{window[1]}; "
            "choose an input size for which it does"
        )


def window_partition(x: Float[Array, "b h w c"], window: Pair) -> Float[Array, "b n t c"]:
    """Split a map into `n` windows of `t = window[0] * window[1]` adjacent tokens.

    Liu et al., "Swin Transformer" (2021), section 3.2.
    """
    h, w = x.shape[1:3]
    _check_divisible((h, w), window, "windows")
    return _merge_pairs(split_axis(split_axis(x, 2, window[1]), 1, window[0]).transpose(0, 1, 3, 2, 4, 5))


def window_reverse(windows: Float[Array, "b n t c"], window: Pair, size: Sizes) -> Float[Array, "b h w c"]:
    """The inverse of `window_partition`; `size` is (h, w)."""
    x = split_axis(split_axis(windows, 2, window[1]), 1, size[1] // window[1])
    return _merge_pairs(x.transpose(0, 1, 3, 2, 4, 5))


def grid_partition(x: Float[Array, "b h w c"], grid: Pair) -> Float[Array, "b n t c"]:
    """Split a map into `n` grids of `t = grid[0] * grid[1]` tokens, `h / grid[0]` rows and `w / grid[1]` columns apart.

    Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022), section 3.2.
    """
    h, w = x.shape[1:3]
    _check_divisible((h, w), grid, "grids")
    x = split_axis(split_axis(x, 2, w // grid[1]), 1, h // grid[0])
    return _merge_pairs(x.transpose(0, 2, 4, 1, 3, 5))


def grid_reverse(grids: Float[Array, "b n t c"], grid: Pair, size: Pair) -> Float[Array, "b h w c"]:
    """The inverse of `grid_partition`; `size` is (h, w)."""
    x = split_axis(split_axis(grids, 2, grid[1]), 1, size[1] // grid[1])
    return _merge_pairs(x.transpose(0, 3, 1, 4, 2, 5))


def _merge_pairs(x: Array) -> Array:
    """Merge axes 1 and 2, and axes 3 and 4."""
    return merge_axes(merge_axes(x, 3), 1)


@functools.cache
def relative_position_index(window: Pair) -> Int[np.ndarray, "t t"]:
    """For each pair of tokens (query, key) in a window, the index of their offset.

    There are `(2 * window[0] - 1) * (2 * window[1] - 1)` offsets, the rows of a relative position bias table.
    """
    rows, columns = (axis.ravel() for axis in np.indices(window))
    down = rows[:, None] - rows[None] + window[0] - 1
    right = columns[:, None] - columns[None] + window[1] - 1
    # int32 with and without x64: JAX keeps the type that it first gave an array of int64.
    return (down * (2 * window[1] - 1) + right).astype(np.int32)


def class_relative_position_index(size: Pair) -> Int[np.ndarray, "t t"]:
    """`relative_position_index` of a class token followed by the tokens of a map.

    Three indices follow those of the offsets: of the class token's attention to the map, of the map's attention to the
    class token, and of the class token's to itself. Bao et al., "BEiT" (2021).
    """
    offsets = (2 * size[0] - 1) * (2 * size[1] - 1)
    index = np.pad(relative_position_index(size), ((1, 0), (1, 0)))
    index[0], index[1:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
    return index


@functools.cache
def shifted_window_mask(size: Pair, window: Pair, shift: Pair) -> Float[np.ndarray, "n t t"]:
    """Attention bias for the `n` windows of a cyclically shifted map.

    0 between two tokens of a window that come from the same region of the map, -100 if the shift moved one of them in
    from the opposite side.

    Liu et al., "Swin Transformer" (2021), section 3.2, "Efficient batch computation".
    """

    def regions(n, k, s):
        region = np.zeros(n, np.int64)
        if s:
            region[n - k : n - s], region[n - s :] = 1, 2
        return region

    label = regions(size[0], window[0], shift[0])[:, None] * 3 + regions(size[1], window[1], shift[1])[None]
    label = label.reshape(size[0] // window[0], window[0], size[1] // window[1], window[1])
    label = label.transpose(0, 2, 1, 3).reshape(-1, window[0] * window[1])
    return np.where(label[:, :, None] == label[:, None, :], 0.0, -100.0).astype(np.float32)


def gather_bias(table: Float[Array, "offsets heads"], index: Int[np.ndarray, "t t"]) -> Float[Array, "heads t t"]:
    """The attention bias (heads, query, key) from a relative position bias table and `relative_position_index`."""
    return table.T.at[:, index].get(mode="promise_in_bounds")
