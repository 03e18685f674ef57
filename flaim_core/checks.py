"""Checks of options and sizes, which raise errors that name what is wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from flaim_core.scope import Scope


def per_stage(**options: Sequence) -> Iterator[tuple[Any, ...]]:
    """Iterate over stages: a tuple for each stage, with that stage's entry of every option.

    The first option says how many stages there are. Raises ValueError if another option has fewer entries. It may have
    more: `depths=(2, 2)` makes a network of the first two stages without changes to the other options.
    """
    (first, depths), *others = options.items()
    for name, values in others:
        if len(values) < len(depths):
            raise ValueError(f"{len(depths)} {first} need as many {name}, got {len(values)}: {tuple(values)}")
    return zip(*options.values())


def check_heads(scope: Scope, dim: int, num_heads: int) -> None:
    """Raise ValueError, which names the path, if `dim` is not divisible by `num_heads`."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} does not divide into {num_heads} heads")


def require_fixed(scope: Scope, leaf: str, sizes: Sequence[Any]) -> None:
    """Raise ValueError if one of `sizes` is symbolic: the shape of the leaf at this path depends on them."""
    if not all(isinstance(n, int) for n in sizes):
        path = "/".join((*scope.path, leaf))
        size = "x".join(map(str, sizes))
        raise ValueError(f"{path} is made for images of one size: height and width cannot be symbolic (here {size})")
