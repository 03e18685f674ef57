"""The model function."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
from jaxtyping import Array, Float

from flaim_core import Scope, batch_norm, classifier_head, conv, kernel
from flaim_core.layers.stacks import Stack, run


@kernel
def efficientnet(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    stages: Sequence[Sequence[Stack]],
    stem_features: int = 32,
    stem_kernel_size: int = 3,
    head_features: int | None = 1280,
    depth_multiplier: int = 1,
    padding: int | tuple | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    norm_eps: float | None = None,
    act: Callable = jax.nn.silu,
    norm_act: Callable | None = None,
    anti_alias: Callable | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A strided convolution, stages of stacks of blocks, a 1x1 convolution and a classifier.

    Args:
        stages: The stacks of each stage; their own options override `padding`, `norm`, `act`, `norm_act` and
            `anti_alias`.
        head_features: Width of the last convolution; None for none.
        depth_multiplier: Maps that a depthwise convolution makes of each channel; other than 1 only where all blocks
            are depthwise-separable.
        padding, norm, act, norm_act, anti_alias: As in `flaim_core.mbconv`.
        norm_eps: Epsilon of all norms; None for the norm's own.
        drop_rate: Of the classifier's input.
        drop_path_rate: Stochastic depth: block `i` of `n`, counted from 0, is dropped at `drop_path_rate * i / n`.
    """
    norm = norm if norm_eps is None else partial(norm, eps=norm_eps)
    activate = norm_act or (lambda scope, x: act(norm(scope, x)))
    x = conv(scope["conv_stem"], x, stem_features, kernel_size=stem_kernel_size, stride=2, padding=padding, bias=False)
    x = activate(scope["bn1"], x)
    scope.capture("stage_0", x)

    shared: dict = dict(padding=padding, norm=norm, act=act, norm_act=norm_act, anti_alias=anti_alias)
    if depth_multiplier != 1:  # only depthwise-separable blocks have this option
        shared["depth_multiplier"] = depth_multiplier
    x = run(scope, x, stages, shared, drop_path_rate)
    if head_features is not None:
        x = activate(scope["bn2"], conv(scope["conv_head"], x, head_features, kernel_size=1, bias=False))
    return classifier_head(scope["classifier"], x, n_classes, drop_rate=drop_rate)
