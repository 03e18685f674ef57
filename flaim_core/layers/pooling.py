"""The pooling in a stem: functions `(scope, x, norm)` that halve a map.

Those here need `x` alone; `scope` and `norm` are for a network whose stem has a convolution in the place of pooling.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.scope import Scope


def max_pooling(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 2."""
    return ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def blurred_max_pooling(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """3x3 max-pooling of stride 1, then a low-pass filter of stride 2."""
    return ops.blur_pool(ops.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))))


def average_pooling(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """2x2 average pooling of stride 2."""
    return halve(x)


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """2x2 average pooling of stride 2, as a function of the map alone."""
    return ops.avg_pool(x, (2, 2), (2, 2))
