from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core.layers._conv import conv
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import layer_norm
from flaim_core.ops import at_least_float32
from flaim_core.scope import Scope, kernel


@kernel
def global_context(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    act: Callable = relu,
    gate: Callable = jax.nn.sigmoid,
) -> Float[Array, "b h w c"]:
    """Multiply each channel by a gate: a two-layer network of an attention-weighted mean over all positions.

    Paths: `conv_attn`, the attention's logits; `mlp_scale/fc1`, `mlp_scale/norm`, `mlp_scale/fc2`. Cao et al., "GCNet:
    Non-local Networks Meet Squeeze-Excitation Networks and Beyond" (2019), which adds; this multiplies, as timm does.
    """
    logits = at_least_float32(conv(scope["conv_attn"], x, 1, kernel_size=1))
    attention = jax.nn.softmax(logits, axis=(1, 2)).astype(x.dtype)
    context = jnp.einsum("bhwo,bhwc->boc", attention, x)[:, None]
    mlp = scope["mlp_scale"]
    excited = act(layer_norm(mlp["norm"], conv(mlp["fc1"], context, hidden, kernel_size=1)))
    return x * gate(conv(mlp["fc2"], excited, x.shape[-1], kernel_size=1))
