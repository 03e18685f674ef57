"""Resampling on load, as timm does it: position embeddings, relative position tables, the first convolution."""

import numpy as np
from jaxtyping import Float


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5, as in PyTorch's antialiased bicubic interpolation."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def bicubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Antialiased bicubic interpolation along one axis, as a matrix."""
    scale = old / new
    stretch = max(scale, 1.0)  # a smaller target widens the kernel
    centre = scale * (np.arange(new) + 0.5)
    low = np.maximum(np.floor(centre - 2 * stretch + 0.5), 0)
    high = np.minimum(np.floor(centre + 2 * stretch + 0.5), old)
    position = np.arange(old)
    weights = _cubic((position + 0.5 - centre[:, None]) / stretch)
    weights *= (position >= low[:, None]) & (position < high[:, None])
    return weights / weights.sum(1, keepdims=True)


def bilinear_weights(old: int, new: int, align_corners: bool = False) -> Float[np.ndarray, "new old"]:
    """Bilinear interpolation along one axis, without antialiasing, as a matrix."""
    position = np.linspace(0, old - 1, new) if align_corners else (np.arange(new) + 0.5) * old / new - 0.5
    return _linear_weights(position, np.arange(old))


def _linear_weights(at: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Linear interpolation from a grid, constant beyond its ends, as a matrix `(at, grid)`."""
    return np.stack([np.interp(at, grid, column) for column in np.eye(len(grid))], axis=1)


def resample_position_embedding(
    embedding: Float[np.ndarray, "1 old dim"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    interpolation: str = "bicubic",
) -> Float[np.ndarray, "1 new dim"]:
    """Position embeddings for another grid of patches; prefix tokens (class, registers) stay as they are.

    `interpolation` is "bicubic" (antialiased), "bilinear" or "bilinear_aligned" (corner to corner).
    """
    prefix = embedding.shape[1] - old_grid[0] * old_grid[1]
    weights = {
        "bicubic": bicubic_weights,
        "bilinear": bilinear_weights,
        "bilinear_aligned": lambda old, new: bilinear_weights(old, new, align_corners=True),
    }[interpolation]
    rows, columns = (weights(old, new) for old, new in zip(old_grid, new_grid))
    patches = embedding[0, prefix:].reshape(*old_grid, -1).astype(np.float64)
    patches = np.einsum("yh,xw,hwd->yxd", rows, columns, patches, optimize=True)
    patches = patches.reshape(1, -1, embedding.shape[-1]).astype(np.float32)
    return np.concatenate([embedding[:, :prefix].astype(np.float32), patches], axis=1)


def _table_weights(old: int, new: int) -> np.ndarray:
    """Interpolation of one axis of a relative position table, `(new, old)`.

    BEiT's scheme: the old offsets are spread over the new ones in geometric progression, densest around zero, where
    the table matters most.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    positive = np.cumsum(ratio ** np.arange(old // 2))
    grid = np.concatenate([-positive[::-1], [0], positive])
    return _linear_weights(np.arange(new) - new // 2, grid)


def resample_relative_table(table: np.ndarray, old_window: tuple[int, int], new_window: tuple[int, int]) -> np.ndarray:
    """A relative position bias table for another window.

    The table is `(offsets, heads)` or `(heads, 2 * height - 1, 2 * width - 1)`. Rows that follow those of the offsets,
    a class token's, stay as they are.
    """
    old, new = ([2 * side - 1 for side in window] for window in (old_window, new_window))
    rows, columns = (_table_weights(o, n) for o, n in zip(old, new))
    if table.ndim == 3:
        return np.einsum("yh,xw,nhw->nyx", rows, columns, table.astype(np.float64), optimize=True).astype(np.float32)
    offsets, heads = old[0] * old[1], table.shape[-1]
    grid = table[:offsets].reshape(*old, heads).astype(np.float64)
    grid = np.einsum("yh,xw,hwn->yxn", rows, columns, grid, optimize=True)
    return np.concatenate([grid.reshape(-1, heads), table[offsets:]]).astype(np.float32)


def adapt_input_channels(
    kernel: Float[np.ndarray, "height width old out"], channels: int
) -> Float[np.ndarray, "height width {channels} out"]:
    """The first convolution for another number of image channels.

    For one channel, the kernel is summed over the old ones, as if a grey image were repeated. Otherwise the old
    channels are repeated in turn and scaled, so that activations keep their magnitude.
    """
    kernel = kernel.astype(np.float32)
    old = kernel.shape[2]
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    return kernel[:, :, np.arange(channels) % old] * np.float32(old / channels)
