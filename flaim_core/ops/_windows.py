"""Partitions of a feature map into windows and grids, and the tables of their relative positions."""

import functools

import numpy as np
from jaxtyping import Array, Float, Int

from flaim_core.ops._broadcast import merge_axes, split_axis
from flaim_core.ops._views import Pair


def _check_divisible(size: Pair, window: Pair, what: str) -> None:
    if size[0] % window[0] or size[1] % window[1]:
        raise ValueError(
            f"a feature map of {size[0]}x{size[1]} does not divide into {what} of {window[0]}x{window[1]}; "
            "choose an input size for which it does"
        )


def window_partition(x: Float[Array, "b h w c"], window: Pair) -> Float[Array, "b n t c"]:
    """Split a map into `n` windows of `t = window[0] * window[1]` neighbouring tokens.

    Liu et al., "Swin Transformer" (2021), section 3.2.
    """
    h, w = x.shape[1:3]
    _check_divisible((h, w), window, "windows")
    return _side_by_side(split_axis(split_axis(x, 2, window[1]), 1, window[0]).transpose(0, 1, 3, 2, 4, 5))


def window_reverse(windows: Float[Array, "b n t c"], window: Pair, size: Pair) -> Float[Array, "b h w c"]:
    """The map of `size` (height, width) that `window_partition` split."""
    x = split_axis(split_axis(windows, 2, window[1]), 1, size[1] // window[1])
    return _side_by_side(x.transpose(0, 1, 3, 2, 4, 5))


def grid_partition(x: Float[Array, "b h w c"], grid: Pair) -> Float[Array, "b n t c"]:
    """Split a map into `n` dilated grids of `t = grid[0] * grid[1]` tokens that lie evenly over the whole map.

    Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022), section 3.2.
    """
    h, w = x.shape[1:3]
    _check_divisible((h, w), grid, "grids")
    x = split_axis(split_axis(x, 2, w // grid[1]), 1, h // grid[0])
    return _side_by_side(x.transpose(0, 2, 4, 1, 3, 5))


def grid_reverse(grids: Float[Array, "b n t c"], grid: Pair, size: Pair) -> Float[Array, "b h w c"]:
    """The map of `size` (height, width) that `grid_partition` split."""
    x = split_axis(split_axis(grids, 2, grid[1]), 1, size[1] // grid[1])
    return _side_by_side(x.transpose(0, 3, 1, 4, 2, 5))


def _side_by_side(x: Array) -> Array:
    """Axes 1 and 2 as one, and axes 3 and 4."""
    return merge_axes(merge_axes(x, 3), 1)


@functools.cache
def relative_position_index(window: Pair) -> Int[np.ndarray, "t t"]:
    """Row in a table of `(2 * window[0] - 1) * (2 * window[1] - 1)` offsets for each pair of tokens of a window."""
    rows, columns = (axis.ravel() for axis in np.indices(window))
    down = rows[:, None] - rows[None] + window[0] - 1
    right = columns[:, None] - columns[None] + window[1] - 1
    return down * (2 * window[1] - 1) + right


@functools.cache
def shifted_window_mask(size: Pair, window: Pair, shift: Pair) -> Float[np.ndarray, "n t t"]:
    """Bias of 0 between tokens that were neighbours before a cyclic shift by `shift`, -100 between others.

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
    """The attention bias that a table of relative positions holds for each pair of tokens."""
    return table.T.at[:, index].get(mode="promise_in_bounds")
