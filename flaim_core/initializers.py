"""Initialisers: functions `(key, shape, dtype) -> array`. Equal arguments give the same function object."""

import functools
import math

import jax
import jax.numpy as jnp


def zeros(key, shape, dtype=jnp.float32):
    """All zeros."""
    return jnp.zeros(shape, dtype)


def ones(key, shape, dtype=jnp.float32):
    """All ones."""
    return jnp.ones(shape, dtype)


@functools.cache
def constant(value: float):
    """One value everywhere."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.full(shape, value, dtype)

    return init


@functools.cache
def normal(std: float):
    """Normal with mean 0."""

    def init(key, shape, dtype=jnp.float32):
        return std * jax.random.normal(key, shape, dtype)

    return init


@functools.cache
def truncated_normal(std: float):
    """Normal with mean 0, redrawn outside two standard deviations; `std` is that of the distribution before the cut."""

    def init(key, shape, dtype=jnp.float32):
        return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return init


@functools.cache
def uniform(bound: float):
    """Uniform in `[-bound, bound)`."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def he_normal_fan_out(key, shape, dtype=jnp.float32):
    """Normal of variance 2 / fan-out, for a convolution kernel `(height, width, in / groups, out)`.

    He et al., "Delving Deep into Rectifiers" (2015), the backward variant.
    """
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return math.sqrt(2 / fan_out) * jax.random.normal(key, shape, dtype)


def lecun_normal(key, shape, dtype=jnp.float32):
    """Truncated normal of variance 1 / fan-in, for a kernel `(..., in, out)`.

    LeCun et al., "Efficient BackProp" (1998).
    """
    std = math.sqrt(1 / math.prod(shape[:-1])) / 0.87962566103423978  # the cut at two deviations shrinks the variance
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def xavier_uniform(key, shape, dtype=jnp.float32):
    """Uniform of variance 2 / (fan-in + fan-out), for a dense kernel `(in, out)`. Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / (shape[-2] + shape[-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
