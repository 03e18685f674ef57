"""The stem and the model function."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from flaim_core import (
    Scope,
    batch_norm,
    classifier,
    classifier_head,
    conv,
    drop_path_schedule,
    gelu,
    kernel,
    layer_norm,
    linear,
    ops,
)
from flaim_core.checks import per_stage


@kernel
def convolutional_stem(
    scope: Scope,
    x: Float[Array, "b h w c"],
    widths: Sequence[int],
    *,
    norm: Callable = batch_norm,
    act: Callable = gelu,
    bias: bool = False,
    padding: Literal["same"] | None = None,
) -> Float[Array, "b h2 w2 f"]:
    """Two 3x3 convolutions, the first strided."""
    x = conv(scope["conv1"], x, widths[0], kernel_size=3, stride=2, padding=padding, bias=bias)
    return conv(scope["conv2"], act(norm(scope["norm1"], x)), widths[1], kernel_size=3, padding=padding, bias=bias)


@kernel
def maxvit(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    blocks: Sequence[Callable | Sequence[Callable]],
    depths: Sequence[int],
    dims: Sequence[int],
    stem_dims: Sequence[int],
    stem: Callable = convolutional_stem,
    norm: Callable = layer_norm,
    head_hidden: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Hybrid of convolutions and attention, of as many stages as there are `depths`.

    Blocks and grids of attention are a 32nd of the image's height and width. So most leaves of relative positions fit
    images of one size only.

    Args:
        n_classes: Positive: logits; -1: the classifier's input, after the hidden layer where there is one; 0: the last
            feature map, normalised where there is no hidden layer.
        blocks: One entry a stage: the kind of its blocks, or the kinds of its blocks in order, of which the last one is
            also the kind of the remaining blocks.
        stem_dims: Widths of the stem's two convolutions.
        norm: The norm before the classifier.
        head_hidden: Width of a hidden layer before the classifier. Without it the norm is applied to the last feature
            map, with it to the mean of the map.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
    """
    size = (ops.max_dim(x.shape[1] // 32, 1), ops.max_dim(x.shape[2] // 32, 1))
    x = stem(scope["stem"], x, tuple(stem_dims))
    scope.capture("stage_0", x)
    rates = iter(drop_path_schedule(drop_path_rate, sum(depths)))
    for stage, (depth, kinds, dim) in enumerate(per_stage(depths=depths, blocks=blocks, dims=dims)):
        kinds = (kinds,) if callable(kinds) else kinds
        for i in range(depth):
            block = kinds[min(i, len(kinds) - 1)]
            options = dict(stride=2 if i == 0 else 1, size=size, drop_path_rate=next(rates))
            x = scope["stages"][stage]["blocks"][i].call(block, x, dim, **options)
        scope.capture(f"stage_{stage + 1}", x)
    head = scope["head"]
    if head_hidden is None:
        return classifier_head(head["fc"], norm(scope["norm"], x), n_classes, drop_rate=drop_rate)
    if n_classes == 0:
        return x
    x = norm(head["norm"], ops.global_avg_pool(x))
    x = jnp.tanh(linear(head["pre_logits"]["fc"], x, head_hidden))
    return classifier(head["fc"], x, n_classes, drop_rate=drop_rate)
