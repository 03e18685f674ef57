"""Initialisers: functions `(key, shape, dtype) -> array` that are values: they compare by what they say, and pickle.

Random values are drawn in blocks of one size, so that one compiled program serves leaves of every shape.
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
    """Normal of deviation `scale`, redrawn beyond `cut` deviations (by the inverse of its distribution function)."""
    below_one = jnp.nextafter(jnp.float32(-1), jnp.float32(0))  # of minus one the inverse is infinite
    level = jax.random.uniform(key, (_BLOCK,), jnp.float32, below_one, 1.0) * lax.erf(cut * math.sqrt(0.5))
    return scale * jnp.clip(math.sqrt(2) * lax.erf_inv(level), -cut, cut)


def _uniform(key: PRNGKeyArray, scale: Any, cut: Any) -> Array:
    """Uniform in `[-scale, scale)`."""
    return scale * jax.random.uniform(key, (_BLOCK,), jnp.float32, -1.0, 1.0)


@functools.partial(jax.jit, static_argnums=0)
def _block(sample: Callable, key: PRNGKeyArray, index: Any, scale: Any, cut: Any) -> Array:
    return sample(jax.random.fold_in(key, index), scale, cut)


def _draw(sample: Callable, key: Any, shape: tuple[int, ...], dtype: Any, scale: float, cut: float = math.inf) -> Array:
    """`sample(key, scale, cut)` in blocks, as an array of `shape`."""
    count = math.prod(shape)
    blocks = np.arange(-(-count // _BLOCK), dtype=np.uint32)
    draw = functools.partial(_block, sample, key, scale=np.float32(scale), cut=np.float32(cut))
    if isinstance(key, jax.core.Tracer):  # inside a transformation the blocks are one vectorised operation
        return jax.vmap(draw)(blocks).reshape(-1)[:count].reshape(shape).astype(dtype)
    drawn = [draw(index) for index in blocks]  # all asked for before the first is waited for: they run side by side
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
    """One value everywhere."""

    value: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return jnp.asarray(np.full(shape, self.value, dtype), dtype)


@dataclass(frozen=True)
class normal:
    """Normal with mean 0."""

    std: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_normal, key, shape, dtype, self.std)


@dataclass(frozen=True)
class truncated_normal:
    """Normal with mean 0, redrawn outside two standard deviations; `std` is that of the distribution before the cut."""

    std: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_normal, key, shape, dtype, self.std, cut=2)


@dataclass(frozen=True)
class uniform:
    """Uniform in `[-bound, bound)`."""

    bound: float

    def __call__(self, key, shape, dtype=jnp.float32):
        return _draw(_uniform, key, shape, dtype, self.bound)


def he_normal_fan_out(key, shape, dtype=jnp.float32):
    """Normal of variance 2 / fan-out, for a convolution kernel `(height, width, in / groups, out)`.

    He et al., "Delving Deep into Rectifiers" (2015), the backward variant.
    """
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return _draw(_normal, key, shape, dtype, math.sqrt(2 / fan_out))


def he_normal(key, shape, dtype=jnp.float32):
    """Normal of variance 2 / fan-in, for a kernel `(..., in, out)`; in a depthwise one, also of 2 / fan-out.

    He et al., "Delving Deep into Rectifiers" (2015), the forward variant.
    """
    return _draw(_normal, key, shape, dtype, math.sqrt(2 / math.prod(shape[:-1])))


def lecun_normal(key, shape, dtype=jnp.float32):
    """Truncated normal of variance 1 / fan-in, for a kernel `(..., in, out)`.

    LeCun et al., "Efficient BackProp" (1998).
    """
    left = 0.87962566103423978  # standard deviation of a unit normal after the cut at two deviations
    return _draw(_normal, key, shape, dtype, math.sqrt(1 / math.prod(shape[:-1])) / left, cut=2)


def xavier_uniform(key, shape, dtype=jnp.float32):
    """Uniform of variance 2 / (fan-in + fan-out), for a dense kernel `(in, out)`. Glorot and Bengio (2010)."""
    return _draw(_uniform, key, shape, dtype, math.sqrt(6 / (shape[-2] + shape[-1])))
