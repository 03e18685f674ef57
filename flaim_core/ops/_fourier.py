"""Filters of the size of the whole map, which act on its Fourier transform.

A CPU by itself runs `jnp.fft`. Elsewhere the transforms are products of small matrices: these have derivatives on
Explicit meshes and a form in ONNX, and accelerators multiply matrices faster than they transform.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from flaim_core.lowering import for_single_cpu


def spectral_filter(
    x: Float[Array, "b c h w"], real: Float[Array, "c h k"], imaginary: Float[Array, "c h k"]
) -> Float[Array, "b c h w"]:
    """Multiply the Fourier transform of each map by that of a filter, whose parts are given: `k = w // 2 + 1`.

    A circular convolution of each channel. Rao et al., "Global Filter Networks for Image Classification" (2021).
    """
    real, imaginary = real[None], imaginary[None]
    if for_single_cpu(x, real, imaginary):
        return jnp.fft.irfft2(jnp.fft.rfft2(x) * lax.complex(real, imaginary), x.shape[-2:])
    a, b = _rfft2(x)
    return _irfft2(a * real - b * imaginary, a * imaginary + b * real, x.shape[-1])


@functools.cache
def _waves(size: int, frequencies: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines (size, frequencies) of `2 pi position frequency / size`."""
    angles = 2 * np.pi / size * (np.arange(size)[:, None] * np.arange(frequencies) % size)
    return np.cos(angles), np.sin(angles)


def _product(equation: str, x: Array, matrix: np.ndarray) -> Array:
    return jnp.einsum(equation, x, jnp.asarray(matrix, x.dtype), precision=lax.Precision.HIGHEST)


def _rfft2(x: Float[Array, "*b h w"]) -> tuple[Float[Array, "*b h k"], Float[Array, "*b h k"]]:
    """Real and imaginary part of the transform over the last two axes, as `jnp.fft.rfft2`: `k = w // 2 + 1`."""
    height, width = x.shape[-2:]
    cosines, sines = _waves(width, width // 2 + 1)
    real, imaginary = _product("...hw,wk->...hk", x, cosines), _product("...hw,wk->...hk", x, -sines)
    cosines, sines = _waves(height, height)
    columns = functools.partial(_product, "...hk,hg->...gk")
    return columns(real, cosines) + columns(imaginary, sines), columns(imaginary, cosines) - columns(real, sines)


def _irfft2(real: Float[Array, "*b h k"], imaginary: Float[Array, "*b h k"], width: int) -> Float[Array, "*b h w"]:
    """The inverse of `_rfft2`, as `jnp.fft.irfft2`; `width` is that of the map."""
    height, frequencies = real.shape[-2:]
    cosines, sines = (wave / height for wave in _waves(height, height))
    columns = functools.partial(_product, "...gk,gh->...hk")
    real, imaginary = (
        columns(real, cosines) - columns(imaginary, sines),
        columns(imaginary, cosines) + columns(real, sines),
    )
    # All frequencies but the first, and the last if the width is even, stand for their negative counterparts too.
    counts = np.where((np.arange(frequencies) == 0) | (2 * np.arange(frequencies) == width), 1, 2) / width
    cosines, sines = (wave * counts for wave in _waves(width, frequencies))
    rows = functools.partial(_product, "...hk,wk->...hw")
    return rows(real, cosines) - rows(imaginary, sines)
