"""Leaves: the declarations of a kernel's variables, how to initialise them, and how to check variables against them."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from flaim_core.tree import flatten, unflatten

Init = Callable[[Any, tuple[int, ...], Any], Array]


class LeafError(ValueError):
    """A variable tree lacks a leaf, or holds one of another shape."""


@dataclass(frozen=True)
class Leaf:
    """A declared variable: its shape, initialiser, layout and dtype.

    `layout` names the axes of a leaf that other libraries store with another order of axes: `"io"` for a dense kernel,
    `"hwio"` for a convolution kernel, `"wio"` for a one-dimensional one. It is `""` for leaves that are the same in
    every library.
    """

    shape: tuple[int, ...]
    init: Init
    layout: str = ""
    dtype: Any = jnp.float32


def stable_hash(name: str) -> int:
    """A 32-bit hash of a name, the same in every process (unlike `hash`)."""
    return zlib.crc32(name.encode())


def init_leaves(leaves: Mapping, key: PRNGKeyArray) -> dict:
    """Initial variables for a tree of `Leaf`. A leaf's value depends only on `key` and the leaf's path."""
    flat = flatten(leaves)
    hashes = np.asarray([stable_hash(path) for path in flat], np.uint32)
    keys = _each(jax.vmap(jax.random.fold_in, (None, 0))(key, hashes))
    return unflatten({path: leaf.init(key, leaf.shape, leaf.dtype) for key, (path, leaf) in zip(keys, flat.items())})


def _each(keys: Array) -> Iterable[Any]:
    """Iterate over an array of keys. Concrete arrays are indexed in NumPy, which is faster."""
    if isinstance(keys, jax.core.Tracer):
        return keys
    if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        impl = jax.random.key_impl(keys)
        return (jax.random.wrap_key_data(data, impl=impl) for data in np.asarray(jax.random.key_data(keys)))
    return iter(np.asarray(keys))


def mismatches(leaves: Mapping, variables: Mapping, *, extra: bool = False) -> list[str]:
    """Where `variables` differ from the tree of `Leaf`: a line for each missing or misshapen leaf.

    With `extra`, also for each that is in `variables` only.
    """
    expected, found = flatten(leaves), flatten(variables)
    lines = []
    for path, leaf in expected.items():
        if path not in found:
            lines.append(f"{path}: missing, expected shape {leaf.shape}")
        elif found[path].shape != leaf.shape:
            lines.append(f"{path}: found shape {found[path].shape}, expected {leaf.shape}")
    if extra:
        lines += [f"{path}: unexpected, shape {found[path].shape}" for path in found if path not in expected]
    return lines
