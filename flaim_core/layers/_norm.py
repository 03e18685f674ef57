import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.leaf import Init
from flaim_core.ops import at_least_float32, fusion_boundary, per_channel
from flaim_core.scope import Scope, kernel


def _affine(scope: Scope, x: Array, features: int, scale_init: Init, bias: bool = True) -> Array:
    """`x * scale + bias`, with leaves in the dtype of `x`."""
    x = x * per_channel(scope.param("scale", (features,), scale_init, dtype=x.dtype), x)
    return x + per_channel(scope.param("bias", (features,), initializers.zeros, dtype=x.dtype), x) if bias else x


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _variance(x: Array, mean: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The variance of `x` along `axes`; `mean` is the mean of `x`."""
    return jnp.mean(jnp.square(x - mean), axes, keepdims=keepdims)


@_variance.defjvp
def _variance_jvp(axes: tuple[int, ...], keepdims: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The tangent of `mean` has the factor `sum(x - mean)`, which is 0, so it is left out: one pass over x less.

    The variance is computed here, not by a call of `_variance`, so that remat sees the sum and makes it saveable.
    """
    (x, mean), (tangent, _) = primals, tangents
    average = functools.partial(jnp.mean, axis=axes, keepdims=keepdims)
    return average(jnp.square(x - mean)), 2 * average((x - mean) * tangent)


@jax.custom_jvp
def _rsqrt(x: Array) -> Array:
    """The inverse square root. Its derivative has no division, for which XLA would compile a loop of its own."""
    return jax.lax.rsqrt(x)


@_rsqrt.defjvp
def _rsqrt_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    y = jax.lax.rsqrt(*primals)
    return y, -0.5 * y * y * y * tangents[0]


@kernel
def batch_norm(
    scope: Scope,
    x: Float[Array, "*b c"],
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
    scale_init: Init = initializers.ones,
) -> Float[Array, "*b c"]:
    """Normalise each channel with the batch's statistics in training, with running statistics in inference.

    Leaves: `scale`, `bias`; running statistics `mean`, `var`, updated as in torch: `(1 - momentum)` times the old value
    plus `momentum` times the batch's mean or unbiased variance. `apply(use_running_average=True)` freezes them.
    `apply(axis_name=...)` averages the batch's statistics over a mapped axis.
    Ioffe and Szegedy, "Batch Normalization" (2015).
    """
    features = x.shape[-1]
    wide = at_least_float32(x)
    running_mean = scope.stat("mean", (features,), initializers.zeros)
    running_var = scope.stat("var", (features,), initializers.ones)
    mean, var = running_mean.astype(wide.dtype), running_var.astype(wide.dtype)
    scale = scope.param("scale", (features,), scale_init, dtype=wide.dtype)
    bias = scope.param("bias", (features,), initializers.zeros, dtype=wide.dtype)
    if not scope.computes:  # the value has the shape of x; batch norm is called often enough for this to matter
        return x
    if not scope.use_running_average:
        axes, count = tuple(range(x.ndim - 1)), x.size // features
        old_mean, old_var, mean = mean, var, jnp.mean(wide, axes)
        if scope.axis_name is not None:
            mean = jax.lax.pmean(mean, scope.axis_name)
            count *= jax.lax.axis_size(scope.axis_name)
        var = _variance(wide, per_channel(mean, x), axes)
        if scope.axis_name is not None:
            var = jax.lax.pmean(var, scope.axis_name)
        unbiased = var * (count / max(count - 1, 1))
        # In the dtype in which they are stored, so that a training step returns the dtypes that it got.
        scope.update("mean", ((1 - momentum) * old_mean + momentum * mean).astype(running_mean.dtype))
        scope.update("var", ((1 - momentum) * old_var + momentum * unbiased).astype(running_var.dtype))
    scale = scale * _rsqrt(var + eps)
    return (wide * per_channel(scale, x) + per_channel(bias - mean * scale, x)).astype(x.dtype)


@kernel
def layer_norm(
    scope: Scope,
    x: Float[Array, "*b c"],
    *,
    eps: float = 1e-6,
    bias: bool = True,
    scale_init: Init = initializers.ones,
) -> Float[Array, "*b c"]:
    """Normalise the last axis to mean 0 and variance 1. Leaves: `scale`, `bias`. Ba et al. (2016)."""
    wide = at_least_float32(x)
    mean = fusion_boundary(jnp.mean(wide, -1, keepdims=True))
    normed = (wide - mean) * fusion_boundary(_rsqrt(_variance(wide, mean, (-1,), True) + eps))
    return _affine(scope, normed, x.shape[-1], scale_init, bias).astype(x.dtype)


@kernel
def rms_norm(
    scope: Scope, x: Float[Array, "*b c"], *, eps: float = 1e-6, scale_init: Init = initializers.ones
) -> Float[Array, "*b c"]:
    """Divide the last axis by its root mean square. Leaf: `scale`. Zhang and Sennrich (2019)."""
    wide = at_least_float32(x)
    normed = wide * fusion_boundary(_rsqrt(jnp.mean(jnp.square(wide), -1, keepdims=True) + eps))
    return _affine(scope, normed, x.shape[-1], scale_init, bias=False).astype(x.dtype)


@kernel
def group_norm(
    scope: Scope,
    x: Float[Array, "b *s c"],
    *,
    groups: int = 32,
    group_size: int | None = None,
    eps: float = 1e-5,
    scale_init: Init = initializers.ones,
) -> Float[Array, "b *s c"]:
    """Normalise each group of channels over space. Leaves: `scale`, `bias`. Wu and He (2018).

    `group_size`, the number of channels in a group, takes precedence over `groups`, the number of groups. Raises
    ValueError if it does not divide the width.
    """
    features = x.shape[-1]
    if features % (groups if group_size is None else group_size):
        what = f"{groups} groups" if group_size is None else f"groups of {group_size}"
        raise ValueError(f"{'/'.join(scope.path)}: width {features} does not divide into {what}")
    groups = groups if group_size is None else features // group_size
    pixels = at_least_float32(x).reshape(x.shape[0], -1, features)
    grouped = ops.split_axis(pixels, 2, features // groups)
    mean = fusion_boundary(jnp.mean(grouped, (1, 3), keepdims=True))
    normed = (grouped - mean) * fusion_boundary(_rsqrt(_variance(grouped, mean, (1, 3), True) + eps))
    return _affine(scope, ops.merge_axes(normed, 2).reshape(x.shape), features, scale_init).astype(x.dtype)


@kernel
def global_response_norm(scope: Scope, x: Float[Array, "b h w c"], *, eps: float = 1e-6) -> Float[Array, "b h w c"]:
    """`x + scale * x * n + bias`, where `n` is each channel's L2 norm over space, divided by the mean over channels.

    Leaves: `scale`, `bias`, both initialised to 0. Woo et al., "ConvNeXt V2" (2023), section 3.
    """
    wide = at_least_float32(x)
    response = jnp.sqrt(jnp.sum(jnp.square(wide), (1, 2), keepdims=True))
    share = fusion_boundary(response / (fusion_boundary(jnp.mean(response, -1, keepdims=True)) + eps))
    return (wide + _affine(scope, wide * share, x.shape[-1], initializers.zeros)).astype(x.dtype)
