from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.scope import Scope, kernel


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, by the error function. Hendrycks and Gimpel (2016)."""
    return jax.nn.gelu(x, approximate=False)


@kernel
def mlp(
    scope: Scope,
    x: Float[Array, "*b c"],
    features: int | None = None,
    *,
    hidden: int,
    act: Callable = gelu,
    norm: Callable | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "*b f"]:
    """Two linear layers, `fc1` to `hidden` and `fc2` to `features` (by default the input's width), `act` between.

    `norm`, a kernel, normalises the hidden activations (path `norm`).
    """
    features = x.shape[-1] if features is None else features
    x = dropout(scope["drop1"], act(linear(scope["fc1"], x, hidden, bias=bias)), drop_rate)
    if norm is not None:
        x = norm(scope["norm"], x)
    return dropout(scope["drop2"], linear(scope["fc2"], x, features, bias=bias), drop_rate)
