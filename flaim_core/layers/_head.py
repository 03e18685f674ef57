from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope


def classifier(
    scope: Scope, x: Float[Array, "*b c"], n_classes: int, *, drop_rate: float = 0.0, bias: bool = True
) -> Float[Array, "*b f"]:
    """The last linear layer, after dropout; `n_classes=-1` leaves it out.

    A plain function, not a kernel: whoever replaces the module at this path replaces the linear layer alone.
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
    """Pooling and `classifier`, the end of most convolutional networks.

    Returns:
        Logits where `n_classes` is positive, the pooled features where it is -1, `x` itself where it is 0.
    """
    return x if n_classes == 0 else classifier(scope, pool(x), n_classes, drop_rate=drop_rate)
