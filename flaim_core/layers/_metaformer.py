from collections.abc import Callable

from jaxtyping import Array, Float

from flaim_core.layers._drop import drop_path
from flaim_core.layers._layer_scale import layer_scale
from flaim_core.layers._mlp import mlp as plain_mlp
from flaim_core.layers._norm import layer_norm
from flaim_core.scope import Scope, kernel


@kernel
def metaformer_block(
    scope: Scope,
    x: Float[Array, "*b c"],
    *,
    token_mixer: Callable,
    mlp: Callable = plain_mlp,
    mlp_ratio: float = 4,
    norm: Callable = layer_norm,
    layer_scale_init: float | None = None,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "*b c"]:
    """Two residual branches, a mixer of tokens and an MLP of each token, which normalise first.

    Tokens are (b, n, c) or a map (b, h, w, c), whichever `token_mixer` takes: a kernel `(scope, x)` that keeps the
    shape, such as `partial(attention, num_heads=8)`, `large_kernel_attention` or `recursive_gated_conv`. Paths:
    `norm1`, `token_mixer`, `norm2`, `mlp`; with `layer_scale_init`, the initial layer scale, `ls1` and `ls2` too.
    Yu et al., "MetaFormer is Actually What You Need for Vision" (2022), section 3.1.
    """
    hidden = int(mlp_ratio * x.shape[-1])
    branches = (("token_mixer", token_mixer), ("mlp", lambda scope, x: mlp(scope, x, hidden=hidden)))
    for i, (name, branch) in enumerate(branches, 1):
        y = branch(scope[name], norm(scope[f"norm{i}"], x))
        if layer_scale_init is not None:
            y = layer_scale(scope[f"ls{i}"], y, init_value=layer_scale_init)
        x = x + drop_path(scope[f"drop_path{i}"], y, drop_path_rate)
    return x
