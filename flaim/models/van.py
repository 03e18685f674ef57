"""Visual Attention Network: a hierarchy of convolutional blocks whose attention is a product with a large kernel's map.

Guo et al., "Visual Attention Network" (2022). The reference implementation is the authors' `models/van.py`
(github.com/Visual-Attention-Network/VAN-Classification), whose module paths the leaves have; timm does not have it.
Its images are normalised with mean and standard deviation 0.5.
"""

from collections.abc import Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family
from flaim_core import (
    Scope,
    batch_norm,
    classifier_head,
    conv,
    depthwise_conv,
    depthwise_mlp,
    drop_path,
    drop_path_schedule,
    gelu,
    kernel,
    large_kernel_attention,
    layer_norm,
    layer_scale,
    overlap_patch_embed,
)
from flaim_core.checks import per_stage

pointwise = partial(conv, kernel_size=1)


@kernel
def depthwise(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """A depthwise 3x3 convolution in a module of its own (path `dwconv`)."""
    return depthwise_conv(scope["dwconv"], x)


@kernel
def attention(scope: Scope, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """`x` plus large kernel attention (path `spatial_gating_unit`) between `proj_1` with GELU and `proj_2`."""
    y = gelu(pointwise(scope["proj_1"], x, x.shape[-1]))
    y = large_kernel_attention(scope["spatial_gating_unit"], y)
    return x + pointwise(scope["proj_2"], y, x.shape[-1])


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    mlp_ratio: float = 4,
    drop_rate: float = 0.0,
    drop_path_rate: float | Float[Array, ""] = 0.0,
) -> Float[Array, "b h w c"]:
    """Attention and an MLP, each a residual branch with a batch norm first and a layer scale last."""
    scale = partial(layer_scale, scope, init_value=1e-2)
    y = scale(attention(scope["attn"], batch_norm(scope["norm1"], x)), leaf="layer_scale_1")
    x = x + drop_path(scope["drop_path1"], y, drop_path_rate)
    options: dict = dict(hidden=int(mlp_ratio * x.shape[-1]), dense=pointwise, depthwise=depthwise)
    y = depthwise_mlp(scope["mlp"], batch_norm(scope["norm2"], x), drop_rate=drop_rate, **options)
    return x + drop_path(scope["drop_path2"], scale(y, leaf="layer_scale_2"), drop_path_rate)


@kernel
def van(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    depths: Sequence[int] = (3, 3, 12, 3),
    dims: Sequence[int] = (64, 128, 320, 512),
    mlp_ratios: Sequence[float] = (8, 8, 4, 4),
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Convolutional network with one stage for each of `depths`; each but the first halves the map.

    Args:
        n_classes: 0 gives the last feature map after its norm.
        drop_rate: Dropout rate in the MLPs, after the activation and after the second layer, as in the reference.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    rates = drop_path_schedule(drop_path_rate, sum(depths))
    for i, (depth, dim, mlp_ratio) in enumerate(per_stage(depths=depths, dims=dims, mlp_ratios=mlp_ratios)):
        patch_size, stride = (7, 4) if i == 0 else (3, 2)
        options: dict = dict(patch_size=patch_size, stride=stride, norm=batch_norm)
        x = overlap_patch_embed(scope[f"patch_embed{i + 1}"], x, dim, **options)
        if i == 0:
            scope.capture("stage_0", x)
        each = {"drop_path_rate": rates[sum(depths[:i]) :][:depth]}
        x = scope[f"block{i + 1}"].repeat(block, x, depth, each=each, mlp_ratio=mlp_ratio, drop_rate=drop_rate)
        x = layer_norm(scope[f"norm{i + 1}"], x)
        scope.capture(f"stage_{i + 1}", x)

    return classifier_head(scope["head"], x, n_classes)


VARIANTS: dict[str, dict] = {
    "van_b0": {"depths": (3, 3, 5, 2), "dims": (32, 64, 160, 256)},
    "van_b1": {"depths": (2, 2, 4, 2)},
    "van_b2": {"depths": (3, 3, 12, 3)},
    "van_b3": {"depths": (3, 5, 27, 3)},
    "van_b4": {"depths": (3, 6, 40, 3)},
    "van_b5": {"depths": (3, 3, 24, 3), "dims": (96, 192, 480, 768)},
    "van_b6": {"depths": (6, 6, 90, 6), "dims": (96, 192, 384, 768)},
}

FAMILY = Family(
    van,
    "head",
    VARIANTS,
    tiny=("van_b0", {"input_size": 32, "depths": (1, 1), "dims": (8, 16), "mlp_ratios": (2, 2)}),
)
