"""PiT: a Vision Transformer whose tokens are pooled between its stages, as maps are in convolutional networks.

Heo et al., "Rethinking Spatial Dimensions of Vision Transformers" (2021). Patches overlap. Between two stages a strided
depthwise convolution halves the map of tokens and doubles its width; class and distillation tokens pass through a
linear layer instead. The reference implementation is timm's `pit.py`, which has no way to resample position embeddings
for images of another size. We leave out attention dropout and logits of the two heads side by side.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim.family import Family, OlderNames, Timm
from flaim_core import (
    Scope,
    attention,
    classifier,
    conv,
    drop_path,
    drop_path_schedule,
    dropout,
    initializers,
    kernel,
    layer_norm,
    linear,
    mlp,
    ops,
)
from flaim_core.checks import per_stage, require_fixed

Rate = float | Float[Array, ""]
_TOKEN_INIT = initializers.truncated_normal(0.02)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b n c"],
    *,
    num_heads: int,
    mlp_ratio: float = 4,
    drop_rate: float = 0.0,
    drop_path_rate: Rate = 0.0,
) -> Float[Array, "b n c"]:
    """Pre-norm transformer block."""
    y = attention(scope["attn"], layer_norm(scope["norm1"], x), num_heads=num_heads, drop_rate=drop_rate)
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    hidden = int(mlp_ratio * x.shape[-1])
    y = mlp(scope["mlp"], layer_norm(scope["norm2"], x), hidden=hidden, drop_rate=drop_rate)
    return x + drop_path(scope["drop_path2"], y, drop_path_rate)


@kernel
def pooling(
    scope: Scope, x: Float[Array, "b h w c"], tokens: Float[Array, "b n c"], features: int
) -> tuple[Float[Array, "b h2 w2 f"], Float[Array, "b n f"]]:
    """Halve the map by a depthwise convolution (path `conv`) and widen the tokens by a linear layer (path `fc`).

    `features` is a multiple of the input's width.
    """
    x = conv(scope["conv"], x, features, kernel_size=3, stride=2, groups=x.shape[-1])
    return x, linear(scope["fc"], tokens, features)


@kernel
def pit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int] = (2, 6, 4),
    num_heads: Sequence[int] = (2, 4, 8),
    head_dims: Sequence[int] = (48, 48, 48),
    patch_size: int = 16,
    stride: int = 8,
    mlp_ratio: float = 4,
    distilled: bool = False,
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Transformer with one stage for each of `depths`; each halves the map of tokens of the one before.

    Args:
        n_classes: 0 gives the class token, and the distillation token after it, (b, tokens, c), after the norm.
        num_heads, head_dims: Heads of each stage, and the width of one; a stage is as wide as its heads.
        stride: Of the patches, in pixels; patches of `patch_size` overlap.
        distilled: A distillation token with a classifier of its own, `head_dist`; logits are the mean of the two.
        drop_rate, pos_drop_rate, proj_drop_rate: Dropout before the head, after the position embedding, and in blocks.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    dims = [heads * width for heads, width in zip(num_heads, head_dims)]
    embed = scope["patch_embed"]["conv"]
    x = conv(embed, x, dims[0], kernel_size=patch_size, stride=stride, padding=0, kernel_init=initializers.lecun_normal)
    require_fixed(scope, "pos_embed", x.shape[1:3])
    position = scope.param("pos_embed", (1, dims[0], *x.shape[1:3]), _TOKEN_INIT)  # channels first, as in timm
    x = dropout(scope["pos_drop"], x + jnp.moveaxis(position, 1, -1), pos_drop_rate)
    tokens = ops.repeat_over_batch(scope.param("cls_token", (1, 2 if distilled else 1, dims[0]), _TOKEN_INIT), x)
    scope.capture("stage_0", x)

    rates = drop_path_schedule(drop_path_rate, sum(depths))
    for i, (depth, heads, dim) in enumerate(per_stage(depths=depths, num_heads=num_heads, head_dims=dims)):
        stage = scope["transformers"][i]
        if i > 0:
            x, tokens = pooling(stage["pool"], x, tokens, dim)
        each, rates = {"drop_path_rate": rates[:depth]}, rates[depth:]
        y = jnp.concatenate([tokens, ops.merge_axes(x, 1)], axis=1)
        y = stage["blocks"].repeat(
            block, y, depth, each=each, num_heads=heads, mlp_ratio=mlp_ratio, drop_rate=proj_drop_rate
        )
        tokens, x = y[:, : tokens.shape[1]], ops.split_axis(y[:, tokens.shape[1] :], 1, x.shape[2])
        scope.capture(f"stage_{i + 1}", x)

    tokens = layer_norm(scope["norm"], tokens)
    if n_classes == 0:
        return tokens
    logits = classifier(scope["head"], tokens[:, 0], n_classes, drop_rate=drop_rate)
    if not distilled:
        return logits
    return (logits + classifier(scope["head_dist"], tokens[:, 1], n_classes, drop_rate=drop_rate)) / 2


_TI = {"depths": (2, 6, 4), "num_heads": (2, 4, 8), "head_dims": (32, 32, 32)}
_XS = {"depths": (2, 6, 4), "num_heads": (2, 4, 8), "head_dims": (48, 48, 48)}
_S = {"depths": (2, 6, 4), "num_heads": (3, 6, 12), "head_dims": (48, 48, 48)}
_B = {"depths": (3, 6, 4), "num_heads": (4, 8, 16), "head_dims": (64, 64, 64), "patch_size": 14, "stride": 7}

VARIANTS: dict[str, dict] = {
    "pit_ti_224": _TI,
    "pit_xs_224": _XS,
    "pit_s_224": _S,
    "pit_b_224": _B,
    "pit_ti_distilled_224": {**_TI, "distilled": True},
    "pit_xs_distilled_224": {**_XS, "distilled": True},
    "pit_s_distilled_224": {**_S, "distilled": True},
    "pit_b_distilled_224": {**_B, "distilled": True},
}

FAMILY = Family(
    pit,
    "head",
    VARIANTS,
    timm=Timm(
        ("pit",),
        {
            "base_dims": ("head_dims", None),
            "depth": ("depths", None),
            "distilled": ("distilled", None),
            "heads": ("num_heads", None),
            "mlp_ratio": ("mlp_ratio", None),
            "patch_size": ("patch_size", None),
            "stride": ("stride", None),
        },
        fixed_input_size=True,
    ),
    older_names=(
        OlderNames(  # the authors', with the poolings beside the stages
            r"^pools\.\d+\.",
            ((r"^pools\.(\d+)\.", lambda match: f"transformers.{int(match[1]) + 1}.pool."),),
        ),
    ),
    tiny=("pit_ti_224", {"input_size": 32, "depths": (1, 1), "num_heads": (1, 2), "head_dims": (8, 8)}),
)
