"""The check that a kernel or pooling window fits a feature map. JAX itself would return an empty map."""

from typing import Any

from flaim_core.ops._views import Pads, Pair


class SizeError(ValueError):
    """A feature map is smaller than a kernel or pooling window."""


def check_fits(size: tuple[Any, Any], window: Pair, padding: Pads, dilation: Pair = (1, 1), *, where: str = "") -> None:
    """Raise SizeError, which names `where`, if a padded map of `size` is smaller than `window`.

    Symbolic sizes are not checked.
    """
    if any(
        isinstance(n, int) and n + sum(pads) < (k - 1) * d + 1 for n, k, pads, d in zip(size, window, padding, dilation)
    ):
        what = f"a feature map of {size[0]}x{size[1]} is smaller than a window of {window[0]}x{window[1]}"
        raise SizeError(f"{where}: {what}" if where else what)
