"""Leaves: what a kernel declares of its variables, and how a tree of them is filled and checked."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from flaim_core.tree import flatten, unflatten

Init = Callable[[Any, tuple[int, ...], Any], Array]


class LeafError(ValueError):
    """A variable tree lacks a leaf, or holds one of another shape."""


@dataclass(frozen=True)
class Leaf:
    """What a kernel declares of one leaf.

    `layout` names the axes where other libraries order them differently: `"io"` (dense kernel), `"hwio"` (convolution
    kernel), `""` for a leaf that is stored alike everywhere.
    """

    shape: tuple[int, ...]
    init: Init
    layout: str = ""
    dtype: Any = jnp.float32


def stable_hash(name: str) -> int:
    """A 32-bit hash of a name that is the same in every process."""
    return zlib.crc32(name.encode())


def init_leaves(leaves: Mapping, key: PRNGKeyArray) -> dict:
    """Initial variables for a tree of `Leaf`. A leaf's value depends on `key` and its path alone."""
    flat = flatten(leaves)
    hashes = jnp.asarray([stable_hash(path) for path in flat], jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, hashes)
    return unflatten({path: leaf.init(keys[i], leaf.shape, leaf.dtype) for i, (path, leaf) in enumerate(flat.items())})


def mismatches(leaves: Mapping, variables: Mapping, *, extra: bool = False) -> list[str]:
    """What is wrong with `variables` as an instance of the tree of `Leaf`, one line a leaf."""
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
