from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope


def classifier(
    scope: Scope, x: Float[Array, "*b c"], n_classes: int, *, drop_rate: float = 0.0, bias: bool = True
) -> Float[Array, "*b f"]:
    """Dropout and the last linear layer, which `n_classes=-1` leaves out.

    A plain function, not a kernel, so that the kernel at this path is the linear layer alone: replacing it with
    `apply(modules=...)` keeps the dropout.
    """
    x = dropout(scope["drop"], x, drop_rate)
    return x if n_classes == -1 else linear(scope, x, n_classes, bias=bias)


def classifier_head(
    scope: Scope,
    x: Float[Array, "b h w c"],
    n_classes: int,
    *,
    pool: Callable = ops.global_avg_pool,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Pooling and `classifier`: the head of most convolutional networks.

    Returns:
        Logits if `n_classes` is positive, the pooled features after dropout if it is -1, `x` itself if it is 0.
    """
    return x if n_classes == 0 else classifier(scope, pool(x), n_classes, drop_rate=drop_rate)
