import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers
from flaim_core.layers._drop import dropout
from flaim_core.layers._linear import linear
from flaim_core.lowering import is_abstract_evaluation
from flaim_core.ops import at_least_float32
from flaim_core.scope import Scope, kernel


def _another(x: Array) -> Array:
    """An array like `x` for abstract evaluation. It is not `x` itself: a batch norm after it cannot be folded."""
    return jnp.zeros(x.shape, x.dtype)


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`max(x, 0)`, with a derivative of 0 at 0. Nair and Hinton (2010)."""
    return _another(x) if is_abstract_evaluation() else jax.nn.relu(x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, with the error function. Hendrycks and Gimpel (2016)."""
    return _another(x) if is_abstract_evaluation() else jax.checkpoint(_gelu, prevent_cse=False)(x)


_SQRT_HALF, _DENSITY = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


# The only residual is x: the derivative is recomputed in the backward pass, since an error function is cheaper than
# another pass over memory. Automatic differentiation would save five arrays.
@jax.custom_jvp
def _gelu(x: Array) -> Array:
    return (at_least_float32(x) * _normal_cumulative(x)).astype(x.dtype)


@_gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,) = primals
    wide = at_least_float32(x)
    cumulative = _normal_cumulative(x)
    slope = cumulative + wide * (_DENSITY * jnp.exp(-0.5 * jnp.square(wide)))
    return (wide * cumulative).astype(x.dtype), slope.astype(x.dtype) * tangents[0]


def _normal_cumulative(x: Array) -> Array:
    return 0.5 + 0.5 * jax.lax.erf(at_least_float32(x) * _SQRT_HALF)


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU with its tanh approximation, as in BERT and big_vision. Hendrycks and Gimpel (2016)."""
    return _another(x) if is_abstract_evaluation() else jax.nn.gelu(x, approximate=True)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU with its sigmoid approximation, as in OpenAI's CLIP. Hendrycks and Gimpel (2016)."""
    return x * jax.nn.sigmoid(1.702 * x)


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
    """Two linear layers, `act` between them: `fc1` to `hidden`, `fc2` to `features` (by default the input's width).

    `norm`, a kernel, normalises the hidden activations (path `norm`).
    """
    y = act(linear(scope["fc1"], x, hidden, bias=bias))
    return _second_layer(scope, y, x.shape[-1] if features is None else features, norm, bias, drop_rate)


@kernel
def glu(
    scope: Scope,
    x: Float[Array, "*b c"],
    features: int | None = None,
    *,
    hidden: int,
    act: Callable = jax.nn.silu,
    norm: Callable | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "*b f"]:
    """MLP with a gated hidden layer of width `hidden`: `fc2(act(fc1_g(x)) * fc1_x(x))`.

    `norm`, a kernel, normalises the hidden activations (path `norm`). With `bias`, the gates are initialised to almost
    constant values (kernel near 0, bias 1). Shazeer, "GLU Variants Improve Transformer" (2020).
    """
    gate_init: dict = dict(kernel_init=initializers.normal(1e-6), bias_init=initializers.ones) if bias else {}
    gate = act(linear(scope["fc1_g"], x, hidden, bias=bias, **gate_init))
    y = gate * linear(scope["fc1_x"], x, hidden, bias=bias)
    return _second_layer(scope, y, x.shape[-1] if features is None else features, norm, bias, drop_rate)


@kernel
def packed_glu(
    scope: Scope,
    x: Float[Array, "*b c"],
    features: int | None = None,
    *,
    hidden: int,
    act: Callable = jax.nn.silu,
    norm: Callable | None = None,
    bias: bool = True,
    drop_rate: float = 0.0,
) -> Float[Array, "*b f"]:
    """`glu` with one linear layer `fc1` of width `hidden`: the gates are its first half, the values the second."""
    gate, value = jnp.split(linear(scope["fc1"], x, hidden, bias=bias), 2, axis=-1)
    y = act(gate) * value
    return _second_layer(scope, y, x.shape[-1] if features is None else features, norm, bias, drop_rate)


def _second_layer(scope: Scope, x: Array, features: int, norm: Callable | None, bias: bool, drop_rate: float) -> Array:
    x = dropout(scope["drop1"], x, drop_rate)
    if norm is not None:
        x = norm(scope["norm"], x)
    return dropout(scope["drop2"], linear(scope["fc2"], x, features, bias=bias), drop_rate)
