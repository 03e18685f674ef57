"""Initialisers: functions `(key, shape, dtype) -> array`. Equal arguments give the same function object.

Random values are drawn in blocks of two fixed sizes, so that one compiled program serves leaves of every shape:
compiling one for each of a ResNet-50's shapes would take five seconds.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

_SMALL, _LARGE = 2**13, 2**18


def _sample_normal(key, size, scale):
    return scale * jax.random.normal(key, (size,), jnp.float32)


def _sample_truncated_normal(key, size, scale):
    return scale * jax.random.truncated_normal(key, -2.0, 2.0, (size,), jnp.float32)


def _sample_uniform(key, size, scale):
    return scale * jax.random.uniform(key, (size,), jnp.float32, -1.0, 1.0)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _block(sample: Callable, key: PRNGKeyArray, size: int, scale: Any) -> Array:
    return sample(key, size, scale)


@jax.jit
def _block_key(key: PRNGKeyArray, index: Any) -> PRNGKeyArray:
    return jax.random.fold_in(key, index)


def _draw(sample: Callable, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any, scale: float) -> Array:
    """`sample(key, size, scale)` in blocks, as an array of `shape`."""
    count = math.prod(shape)
    size = _LARGE if count >= _LARGE else _SMALL
    blocks = -(-count // size)
    if isinstance(key, jax.core.Tracer):  # inside a transformation the blocks are one vectorised operation
        keys = jax.vmap(_block_key, (None, 0))(key, jnp.arange(blocks, dtype=jnp.uint32))
        values = jax.vmap(lambda key: sample(key, size, scale))(keys)
        return values.reshape(-1)[:count].reshape(shape).astype(dtype)
    values = [_block(sample, _block_key(key, np.uint32(i)), size, scale) for i in range(blocks)]
    flat = np.concatenate([np.asarray(v) for v in values])
    return jnp.asarray(flat[:count].reshape(shape), dtype)


def zeros(key, shape, dtype=jnp.float32):
    """All zeros."""
    return jnp.asarray(np.zeros(shape, dtype))


def ones(key, shape, dtype=jnp.float32):
    """All ones."""
    return jnp.asarray(np.ones(shape, dtype))


@functools.cache
def constant(value: float):
    """One value everywhere."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.asarray(np.full(shape, value, dtype))

    return init


@functools.cache
def normal(std: float):
    """Normal with mean 0."""

    def init(key, shape, dtype=jnp.float32):
        return _draw(_sample_normal, key, shape, dtype, std)

    return init


@functools.cache
def truncated_normal(std: float):
    """Normal with mean 0, redrawn outside two standard deviations; `std` is that of the distribution before the cut."""

    def init(key, shape, dtype=jnp.float32):
        return _draw(_sample_truncated_normal, key, shape, dtype, std)

    return init


@functools.cache
def uniform(bound: float):
    """Uniform in `[-bound, bound)`."""

    def init(key, shape, dtype=jnp.float32):
        return _draw(_sample_uniform, key, shape, dtype, bound)

    return init


def he_normal_fan_out(key, shape, dtype=jnp.float32):
    """Normal of variance 2 / fan-out, for a convolution kernel `(height, width, in / groups, out)`.

    He et al., "Delving Deep into Rectifiers" (2015), the backward variant.
    """
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return _draw(_sample_normal, key, shape, dtype, math.sqrt(2 / fan_out))


def he_normal(key, shape, dtype=jnp.float32):
    """Normal of variance 2 / fan-in, for a kernel `(..., in, out)`; in a depthwise one, also of 2 / fan-out.

    He et al., "Delving Deep into Rectifiers" (2015), the forward variant.
    """
    return _draw(_sample_normal, key, shape, dtype, math.sqrt(2 / math.prod(shape[:-1])))


def lecun_normal(key, shape, dtype=jnp.float32):
    """Truncated normal of variance 1 / fan-in, for a kernel `(..., in, out)`.

    LeCun et al., "Efficient BackProp" (1998).
    """
    cut = 0.87962566103423978  # standard deviation of a unit normal after the cut at two deviations
    return _draw(_sample_truncated_normal, key, shape, dtype, math.sqrt(1 / math.prod(shape[:-1])) / cut)


def xavier_uniform(key, shape, dtype=jnp.float32):
    """Uniform of variance 2 / (fan-in + fan-out), for a dense kernel `(in, out)`. Glorot and Bengio (2010)."""
    return _draw(_sample_uniform, key, shape, dtype, math.sqrt(6 / (shape[-2] + shape[-1])))
