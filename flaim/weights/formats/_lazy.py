"""Arrays that are unpacked only when their numbers are used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LazyArray:
    """An array that `load` computes when it is used. Transposing and reshaping stay lazy."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def T(self) -> "LazyArray":
        """The axes in reverse order."""
        return self.transpose(tuple(range(self.ndim))[::-1])

    def transpose(self, *axes: Any) -> "LazyArray":
        """The axes in another order."""
        order = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return LazyArray(tuple(self.shape[i] for i in order), self.dtype, lambda: self.load().transpose(order))

    def reshape(self, *shape: Any) -> "LazyArray":
        """The same numbers in another shape."""
        # A dummy array without storage resolves -1 and checks that the shape fits.
        new = np.broadcast_to(np.zeros((), np.bool_), self.shape).reshape(*shape).shape
        return LazyArray(new, self.dtype, lambda: self.load().reshape(new))

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.load()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a lazy array has no numbers to share")
        array = self.load()
        return array if dtype is None else array.astype(dtype, copy=False)
