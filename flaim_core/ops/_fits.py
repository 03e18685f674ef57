"""Whether a window fits a feature map: where it does not, nothing would be left of the map, without a word."""

from typing import Any

from flaim_core.ops._views import Pads, Pair


class SizeError(ValueError):
    """A feature map is too small for what is to be done with it."""


def check_fits(size: tuple[Any, Any], window: Pair, padding: Pads, dilation: Pair = (1, 1), *, where: str = "") -> None:
    """Raise `SizeError`, which names `where`, if a map of `size` holds no whole window; a symbolic size may."""
    if any(
        isinstance(n, int) and n + sum(pads) < (k - 1) * d + 1 for n, k, pads, d in zip(size, window, padding, dilation)
    ):
        what = f"a feature map of {size[0]}x{size[1]} is smaller than a window of {window[0]}x{window[1]}"
        raise SizeError(f"{where}: {what}" if where else what)
