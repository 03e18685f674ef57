"""Initialisers: functions `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.

Those with options are frozen dataclasses: equal ones compare equal (`normal(0.02) == normal(0.02)`), and they can be
pickled. The closures of `jax.nn.initializers` do neither.

Random values are drawn in blocks of `_BLOCK` numbers, and the last block is cut. So one program is compiled for all
leaves, not one for each shape.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray

_BLOCK = 2**15


def _normal(key: PRNGKeyArray, scale: Any, cut: Any) -> Array:
    """Normal with standard deviation `scale`, truncated at `cut` standard deviations; by inverse transform sampling."""
    low = jnp.nextafter(jnp.float32(-1), jnp.float32(0))  # erf_inv(-1) is infinite
    level = jax.random.uniform(key, (_BLOCK,), jnp.float32, low, 1.0) * lax.erf(cut * math.sqrt(0.5))
    return scale * jnp.clip(math.sqrt(2) * lax.erf_inv(level), -cut, cut)


def _uniform(key: PRNGKeyArray, scale: Any, cut: Any) -> Array:
    """Uniform in `[-scale, scale)`; `cut` is unused."""
    return scale * jax.random.uniform(key, (_BLOCK,), jnp.float32, -1.0, 1.0)


@functools.partial(jax.jit, static_argnums=0)
def _block(sample: Callable, key: PRNGKeyArray, index: Any, scale: Any, cut: Any) -> Array:
    return sample(jax.random.fold_in(key, index), scale, cut)


def _draw(sample: Callable, key: Any, shape: tuple[int, ...], dtype: Any, scale: float, cut: float = math.inf) -> Array:
    """An array of `shape`, from as many blocks of `sample(key, scale, cut)` as it takes."""
    count = math.prod(shape)
    blocks = np.arange(-(-count // _BLOCK), dtype=np.uint32)
    draw = functools.partial(_block, sample, key, scale=np.float32(scale), cut=np.float32(cut))
    if isinstance(key, jax.core.Tracer):  # inside a transformation: all blocks as one operation
        return jax.vmap(draw)(blocks).reshape(-1)[:count].reshape(shape).astype(dtype)
    drawn = [draw(index) for index in blocks]  # dispatch is asynchronous: the blocks run in parallel
    flat = np.concatenate(drawn)[:count] if drawn else np.zeros(0, np.float32)
    return jax.device_put(flat.reshape(shape).astype(dtype, copy=False))


def zeros(key, shape, dtype=jnp.float32):
    """All zeros."""
    return jnp.asarray(np.zeros(shape, dtype), dtype)


def ones(key, shape, dtype=jnp.float32):
    """All ones."""
    return jnp.asarray(np.ones(shape, dtype), dtype)


@dataclass(frozen=True)
class constant:
    """All `value`."""

    value: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.asarray(np.full(shape, self.value, dtype), dtype)


@dataclass(frozen=True)
class normal:
    """Normal with mean 0 and standard deviation `std`."""

    std: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_normal, key, shape, dtype, self.std)


@dataclass(frozen=True)
class truncated_normal:
    """Normal with mean 0, truncated at two standard deviations; `std` is that of the normal before truncation."""

    std: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_normal, key, shape, dtype, self.std, cut=2)


@dataclass(frozen=True)
class uniform:
    """Uniform in `[-bound, bound)`."""

    bound: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_uniform, key, shape, dtype, self.bound)


@dataclass(frozen=True)
class rotary_frequencies:
    """Frequencies of a rotary embedding `(2, ..., f)` along x and y, in a random direction for each `...`.

    Pairs `i` and `i + f / 2` have the magnitude `temperature ** (-2 * i / f)` and directions at a right angle.
    Heo et al., "Rotary Position Embedding for Vision Transformer" (2024), section 3.2.
    """

    temperature: float

    def __call__(self, key, shape, dtype=jnp.float32):
        half = shape[-1] // 2
        directions = _draw(_uniform, key, (*shape[1:-1], 1), jnp.float32, math.pi)
        directions = jnp.concatenate([directions, directions + math.pi / 2], axis=-1)
        magnitudes = jnp.asarray(self.temperature ** (-np.arange(half) / half), jnp.float32)
        magnitudes = jnp.expand_dims(magnitudes, tuple(range(len(shape))))
        components = jnp.stack([jnp.cos(directions), jnp.sin(directions)])[..., None]
        return (components * magnitudes).reshape(shape).astype(dtype)


def he_normal_fan_out(key, shape, dtype=jnp.float32):
    """Normal with variance 2 / fan-out, for a convolution kernel `(height, width, in / groups, out)`.

    He et al., "Delving Deep into Rectifiers" (2015), the backward variant.
    """
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return _draw(_normal, key, shape, dtype, math.sqrt(2 / fan_out))


def he_normal(key, shape, dtype=jnp.float32):
    """Normal with variance 2 / fan-in, for a kernel `(..., in, out)`. In a depthwise one, fan-in is fan-out.

    He et al., "Delving Deep into Rectifiers" (2015), the forward variant.
    """
    return _draw(_normal, key, shape, dtype, math.sqrt(2 / math.prod(shape[:-1])))


def lecun_normal(key, shape, dtype=jnp.float32):
    """Truncated normal with variance 1 / fan-in, for a kernel `(..., in, out)`.

    LeCun et al., "Efficient BackProp" (1998).
    """
    truncated_std = 0.87962566103423978  # of a standard normal that is truncated at two standard deviations
    return _draw(_normal, key, shape, dtype, math.sqrt(1 / math.prod(shape[:-1])) / truncated_std, cut=2)


def xavier_uniform(key, shape, dtype=jnp.float32):
    """Uniform with variance 2 / (fan-in + fan-out), for a dense kernel `(in, out)`. Glorot and Bengio (2010)."""
    return _draw(_uniform, key, shape, dtype, math.sqrt(6 / (shape[-2] + shape[-1])))
