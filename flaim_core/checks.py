"""Options that do not fit together, as errors that say which."""

from collections.abc import Iterator, Sequence
from typing import Any

from flaim_core.scope import Scope


def per_stage(**options: Sequence) -> Iterator[tuple[Any, ...]]:
    """The options of one stage after another, of as many as the first option, `depths`, has.

    Raises ValueError where another one is shorter. Longer ones are fine: a network may be cut short by its depths.
    """
    (first, depths), *others = options.items()
    for name, values in others:
        if len(values) < len(depths):
            raise ValueError(f"{len(depths)} {first} need as many {name}, got {len(values)}: {tuple(values)}")
    return zip(*options.values())


def check_heads(scope: Scope, dim: int, num_heads: int) -> None:
    """Raise ValueError where a width does not divide into heads."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"{'/'.join(scope.path)}: width {dim} does not divide into {num_heads} heads")


def require_fixed(scope: Scope, leaf: str, sizes: Sequence[Any]) -> None:
    """Raise ValueError where a size that `leaf` is made for is symbolic; the message names the leaf."""
    if not all(isinstance(n, int) for n in sizes):
        path = "/".join((*scope.path, leaf))
        size = "x".join(map(str, sizes))
        raise ValueError(f"{path} is made for images of one size: height and width cannot be symbolic (here {size})")
