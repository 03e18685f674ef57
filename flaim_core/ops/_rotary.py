"""Rotary position embedding of maps: pairs of a head's channels are rotated by angles that depend on the token's place.

Su et al., "RoFormer" (2021). The angles for a map of known size are computed by NumPy in float64, and are constants of
the program. Those for a map of symbolic size are computed by JAX.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flaim_core.lowering import is_abstract_evaluation
from flaim_core.ops._views import Sizes


def axial_angles(
    grid: Sizes,
    width: int,
    *,
    temperature: float = 10000.0,
    reference: tuple[int, int] | None = None,
    offset: float = 0.0,
    columns_first: bool = False,
) -> Float[Array | np.ndarray, "n 1 f"]:
    """The angles of heads of `width` channels: half of the pairs turn with the token's row, half with its column.

    Pair `i` of a half turns by `temperature ** (-4 * i / width)` for each row or column. Fang et al., "EVA-02" (2023).

    Args:
        grid: Height and width of the map.
        reference: The map's size in training: positions are scaled as if the map had this size.
        offset: Added to the rows and columns, which are counted from 0.
        columns_first: The columns' half comes before the rows'.
    """
    xp, places = _places(grid)
    places = [place + offset for place in places]
    if reference is not None:
        places = [place * (size / n) for place, size, n in zip(places, reference, _numbers(xp, grid))]
    return _axial(xp, places, temperature ** (-np.arange(width // 4) / (width // 4)), columns_first)


def centred_angles(grid: Sizes, width: int, *, temperature: float = 100.0) -> Float[Array | np.ndarray, "n 1 f"]:
    """The angles of heads of `width` channels, as `axial_angles`, for rows and columns between -1 and 1.

    Pair `i` of a half makes `temperature ** (-4 * i / width)` turns for each unit. Siméoni et al., "DINOv3" (2025).
    """
    xp, places = _places(grid)
    places = [(2 * place + 1) / n - 1 for place, n in zip(places, _numbers(xp, grid))]
    return _axial(xp, places, 2 * math.pi * temperature ** (-np.arange(width // 4) / (width // 4)), False)


def mixed_angles(frequencies: Float[Array, "2 h f"], grid: Sizes) -> Float[Array, "n h f"]:
    """The angles of each head's pairs: the column times the first of the frequencies, plus the row times the second.

    Heo et al., "Rotary Position Embedding for Vision Transformer" (2024), section 3.2.
    """
    xp, places = _places(grid)
    rows, columns = (jnp.asarray(place, frequencies.dtype)[:, None, None] for place in _flat(xp, *places))
    return columns * frequencies[:1] + rows * frequencies[1:]


def rotation(
    angles: Float[Array | np.ndarray, "m h f"], *, fixed: int = 0, dtype: Any = jnp.float32
) -> tuple[Float[Array, "n h f"], Float[Array, "n h f"]]:
    """The sines and cosines of the angles, for `rotate`; before them those of `fixed` tokens that are not rotated."""
    xp = np if isinstance(angles, np.ndarray) else jnp
    angles = xp.concatenate([xp.zeros((fixed, *angles.shape[1:]), angles.dtype), angles])
    return jnp.asarray(xp.sin(angles), dtype), jnp.asarray(xp.cos(angles), dtype)


def rotate(
    x: Float[Array, "*b n h d"],
    sin: Float[Array, "n _ f"],
    cos: Float[Array, "n _ f"],
    *,
    interleaved: bool = False,
) -> Float[Array, "*b n h d"]:
    """Rotate pairs of each head's channels by the angles that `sin` and `cos` are of, in the dtype of these.

    A pair is channels `i` and `i + d / 2`. With `interleaved` it is channels `2 * i` and `2 * i + 1`, and the result
    has the first channels of all pairs, then the second ones: products of queries and keys do not depend on the order.
    """
    if is_abstract_evaluation():
        return x
    wide = x.astype(sin.dtype)
    first, second = (wide[..., ::2], wide[..., 1::2]) if interleaved else jnp.split(wide, 2, axis=-1)
    sin, cos = (jnp.expand_dims(t, tuple(range(x.ndim - 3))) for t in (sin, cos))
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _places(grid: Sizes) -> tuple[Any, list[Any]]:
    """The module to compute with, NumPy or JAX's, and the numbers of the rows and of the columns."""
    if all(isinstance(n, int) for n in grid):
        return np, [np.arange(n, dtype=np.float64) for n in grid]
    return jnp, [jnp.arange(n, dtype=jnp.result_type(float)) for n in grid]


def _numbers(xp: Any, grid: Sizes) -> list[Any]:
    return [xp.asarray(n, np.float64 if xp is np else jnp.result_type(float)) for n in grid]


def _flat(xp: Any, rows: Any, columns: Any) -> list[Any]:
    """Values of each row (h, *f) and of each column (w, *f) as values of each token (h * w, *f)."""
    shape = (rows.shape[0], columns.shape[0], *rows.shape[1:])
    both = xp.broadcast_to(rows[:, None], shape), xp.broadcast_to(columns[None], shape)
    return [values.reshape(shape[0] * shape[1], *shape[2:]) for values in both]


def _axial(xp: Any, places: list[Any], bands: np.ndarray, columns_first: bool) -> Any:
    """The products of places and bands, rows' and columns', side by side, for each token."""
    halves = _flat(xp, *(place[:, None] * xp.asarray(bands, place.dtype)[None] for place in places))
    return xp.concatenate(halves[::-1] if columns_first else halves, axis=-1)[:, None]
