from jaxtyping import Array, Float

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
