import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.leaf import Init
from flaim_core.ops import at_least_float32, fusion_boundary, per_channel
from flaim_core.scope import Scope, kernel


def _affine(scope: Scope, x: Array, features: int, scale_init: Init, bias: bool = True) -> Array:
    """`x` times the leaf `scale` plus the leaf `bias`, both in the precision of `x`."""
    x = x * per_channel(scope.param("scale", (features,), scale_init, dtype=x.dtype), x)
    return x + per_channel(scope.param("bias", (features,), initializers.zeros, dtype=x.dtype), x) if bias else x


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _variance(x: Array, mean: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The mean square deviation from `mean`, which is x's own."""
    return jnp.mean(jnp.square(x - mean), axes, keepdims=keepdims)


@_variance.defjvp
def _variance_jvp(axes: tuple[int, ...], keepdims: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Deviations from the mean sum to zero, so that its tangent does not count: a pass over x less.

    The value is written out, not called: so a recomputed derivative sees the sum, and keeps it.
    """
    (x, mean), (tangent, _) = primals, tangents
    average = functools.partial(jnp.mean, axis=axes, keepdims=keepdims)
    return average(jnp.square(x - mean)), 2 * average((x - mean) * tangent)


@jax.custom_jvp
def _rsqrt(x: Array) -> Array:
    """The inverse square root, with a derivative without division, of which XLA would make a loop of its own."""
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
    """Normalise each channel by the batch's statistics in training, by running ones in inference.

    Leaves: `scale`, `bias`; running statistics `mean`, `var`, which move by `momentum` towards the batch's mean and
    unbiased variance, as in torch; `apply(use_running_average=True)` freezes them. Under a mapped axis
    (`apply(axis_name=...)`) the batch is the whole axis.
    Ioffe and Szegedy, "Batch Normalization" (2015).
    """
    features = x.shape[-1]
    wide = at_least_float32(x)
    running_mean = scope.stat("mean", (features,), initializers.zeros)
    running_var = scope.stat("var", (features,), initializers.ones)
    mean, var = running_mean.astype(wide.dtype), running_var.astype(wide.dtype)
    scale = scope.param("scale", (features,), scale_init, dtype=wide.dtype)
    bias = scope.param("bias", (features,), initializers.zeros, dtype=wide.dtype)
    if not scope.computes:  # of all kernels the one that is called most, and its value is like x
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
        # As stored, so that a training step returns the types that it was given.
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

    `group_size`, the channels of a group, goes before `groups`, their number. Raises ValueError where neither divides
    the width.
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
    """Scale each channel by its share of the response, plus the input itself.

    Leaves: `scale`, `bias`, both zero at first. Woo et al., "ConvNeXt V2" (2023), section 3.
    """
    wide = at_least_float32(x)
    response = jnp.sqrt(jnp.sum(jnp.square(wide), (1, 2), keepdims=True))
    share = fusion_boundary(response / (fusion_boundary(jnp.mean(response, -1, keepdims=True)) + eps))
    return (wide + _affine(scope, wide * share, x.shape[-1], initializers.zeros)).astype(x.dtype)
