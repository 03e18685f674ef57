from jaxtyping import Array, Float

from flaim_core import initializers, ops
from flaim_core.leaf import Init
from flaim_core.scope import Scope, kernel

_KERNEL_INIT = initializers.truncated_normal(0.02)


@kernel
def linear(
    scope: Scope,
    x: Float[Array, "*b c"],
    features: int,
    *,
    bias: bool = True,
    kernel_init: Init = _KERNEL_INIT,
    bias_init: Init = initializers.zeros,
) -> Float[Array, "*b f"]:
    """Affine map of the last axis. Leaves: `kernel` (in, out), `bias`."""
    if features < 1:
        raise ValueError(f"{'/'.join(scope.path)}: a linear layer of {features} features")
    y = ops.dense(x, scope.param("kernel", (x.shape[-1], features), kernel_init, layout="io"))
    return y + ops.per_channel(scope.param("bias", (features,), bias_init), y) if bias else y
