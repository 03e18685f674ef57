import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import ops
from flaim_core.layers._conv import conv
from flaim_core.layers._mbconv import round_features
from flaim_core.layers._mlp import relu
from flaim_core.layers._norm import batch_norm
from flaim_core.layers._selective_kernel import weighted_sum
from flaim_core.scope import Scope, kernel


@kernel
def split_attention(
    scope: Scope,
    x: Float[Array, "b h w c"],
    features: int | None = None,
    *,
    radix: int = 2,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    hidden: int | None = None,
    bias: bool = False,
    norm: Callable = batch_norm,
    act: Callable = relu,
) -> Float[Array, "b h2 w2 f"]:
    """Convolution into `radix` maps of `features` channels, and for each channel a weighted sum of the maps.

    Paths: `conv`, of `radix * groups` groups, `bn0` and activation. The weights are a softmax over the maps, or a
    sigmoid if `radix` is 1; their logits are a two-layer network of the spatial means of the maps' sum: `fc1` to
    `hidden`, `bn1`, activation, `fc2`. Zhang et al., "ResNeSt: Split-Attention Networks" (2020).

    Args:
        features: By default the input's width.
        groups: The paper's cardinality: groups of the convolution within each map, and of `fc1` and `fc2`.
        hidden: By default a quarter of `radix` times the input's width, rounded to a multiple of 8, and at least 32.
        bias: The convolution has a bias.
    """
    features = features or x.shape[-1]
    hidden = hidden or max(32, round_features(x.shape[-1] * radix / 4))
    options: dict = dict(kernel_size=kernel_size, stride=stride, groups=radix * groups, bias=bias)
    x = act(norm(scope["bn0"], conv(scope["conv"], x, radix * features, **options)))

    maps = jnp.split(x, radix, axis=-1)
    means = functools.reduce(jnp.add, jnp.split(ops.global_avg_pool(x), radix, axis=-1))[:, None, None]
    reduced = act(norm(scope["bn1"], conv(scope["fc1"], means, hidden, kernel_size=1, groups=groups)))
    logits = conv(scope["fc2"], reduced, radix * features, kernel_size=1, groups=groups)
    if radix == 1:
        return x * jax.nn.sigmoid(logits)
    # The channels of `fc2` are (group, map, channel of the group).
    logits = ops.split_axis(ops.split_axis(logits, 3, radix * features // groups), 4, features // groups)
    return weighted_sum(maps, ops.merge_axes(jnp.swapaxes(logits, 3, 4), 4))
