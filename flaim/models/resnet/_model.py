"""The model function of ResNets, and its stems."""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.models.resnet._blocks import bottleneck, is_bottleneck, residual, shortcut
from flaim_core import (
    Scope,
    batch_norm,
    classifier_head,
    conv,
    drop_path_schedule,
    kernel,
    relu,
)
from flaim_core.checks import per_stage
from flaim_core.layers.pooling import max_pooling


@kernel
def deep_stem(scope: Scope, x: Float[Array, "b h w c"], widths: Sequence[int], *, norm: Callable) -> Array:
    """Three 3x3 convolutions, the first strided: paths 0, 3, 6, norms at 1 and 4. The last norm is the caller's."""
    for i, width in enumerate(widths[:-1]):
        x = conv(scope[3 * i], x, width, kernel_size=3, stride=2 if i == 0 else 1, bias=False)
        x = relu(norm(scope[3 * i + 1], x))
    return conv(scope[6], x, widths[-1], kernel_size=3, bias=False)


def convolution(scope: Scope, x: Float[Array, "b h w c"], norm: Callable) -> Float[Array, "b h2 w2 c"]:
    """A strided 3x3 convolution instead of pooling (ResNet-RS)."""
    return relu(norm(scope[1], conv(scope[0], x, x.shape[-1], kernel_size=3, stride=2, bias=False)))


@kernel
def resnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    branch: Callable | Sequence[Callable] = bottleneck,
    depths: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    stem_widths: Sequence[int] | None = None,
    stem_width: int = 64,
    stem_pool: Callable = max_pooling,
    average_shortcut: bool = False,
    shortcut_kernel_size: int = 1,
    groups: int = 1,
    base_width: int = 64,
    first_reduction: int = 1,
    first_stride: int = 1,
    stride_first: bool = False,
    conv_bias: bool = False,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    channel_attention: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Residual network of four stages.

    It has more than 20 options because each of them differs in one of ResNet's relatives, and users and saved
    configurations set them by name.

    Args:
        branch: A residual branch of `_blocks.py`, or one per stage; a bottleneck's output has four times its stage's
            width.
        stem_widths: Widths of three 3x3 convolutions; None for one 7x7 of width `stem_width`.
        stem_pool: Function `(scope, x, norm)` that halves the stem's output once more.
        average_shortcut: Projection shortcuts pool first instead of striding.
        first_stride: Stride of the first stage.
        stride_first: Bottlenecks stride in their first convolution, a 1x1, not in the 3x3 one.
        conv_bias: Convolutions have biases; those of a deep stem have none.
        norm_eps: Epsilon of all norms; None for the norm's own.
        anti_alias: Halves a feature map after a convolution of stride 1, instead of a strided convolution.
        drop_path_rate: Drop path rate of the last block; it grows linearly from 0 at the first.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    if stem_widths is None:
        x = conv(scope["conv1"], x, stem_width, kernel_size=7, stride=2, bias=conv_bias)
    else:
        x = deep_stem(scope["conv1"], x, tuple(stem_widths), norm=norm)
    x = relu(norm(scope["bn1"], x))
    scope.capture("stage_0", x)
    x = stem_pool(scope["maxpool"], x, norm)

    shared = dict(bias=conv_bias, norm=norm, channel_attention=channel_attention, anti_alias=anti_alias)
    wide = dict(groups=groups, base_width=base_width, first_reduction=first_reduction, stride_first=stride_first)
    projection = partial(
        shortcut, average=average_shortcut, kernel_size=shortcut_kernel_size, bias=conv_bias, norm=norm
    )
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    branches = [branch] * len(depths) if callable(branch) else branch
    for stage, (depth, kind, width) in enumerate(per_stage(depths=depths, branch=branches, widths=widths), 1):
        features, options = (4 * width, {**shared, **wide}) if is_bottleneck(kind) else (width, shared)
        # One object for the stage: equal blocks are compiled once.
        block = partial(residual, branch=partial(kind, **options), projection=projection)
        first = first_stride if stage == 1 else 2
        for i in range(depth):
            stride = first if i == 0 else 1
            x = scope[f"layer{stage}"][i].call(block, x, features, stride=stride, drop_path_rate=next(rates))
        scope.capture(f"stage_{stage}", x)
    return classifier_head(scope["fc"], x, n_classes, drop_rate=drop_rate)
