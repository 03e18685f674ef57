from collections.abc import Sequence
from typing import Any

from flaim_core.scope import Scope


def require_fixed(scope: Scope, leaf: str, sizes: Sequence[Any]) -> None:
    """Raise ValueError where a size that `leaf` is made for is symbolic; the message names the leaf."""
    if not all(isinstance(n, int) for n in sizes):
        path = "/".join((*scope.path, leaf))
        size = "x".join(map(str, sizes))
        raise ValueError(f"{path} is made for images of one size: height and width cannot be symbolic (here {size})")
