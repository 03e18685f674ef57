"""Stages of mobile convolution blocks, as data: the tables of EfficientNet, MobileNet and their relatives.

A `Stack` is a number of equal blocks, a stage is one or more stacks. `plain`, `ds`, `mb` and `fused` each make a stage
of one stack; `+` joins such stages to one of several stacks. Their arguments are the columns of the papers' tables:

    depth, kernel size, stride of the first block, expansion ratio (`mb` and `fused`), width,
    squeeze-and-excitation ratio (where there is one)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jaxtyping import Array, Float

from flaim_core.layers._mbconv import conv_norm_act, depthwise_separable, fused_mbconv, mbconv, round_features
from flaim_core.scope import Scope


@dataclass(frozen=True)
class Stack:
    """Equal blocks, one after another.

    Attributes:
        block: The kernel.
        depth: Number of blocks.
        features: Their output width.
        options: Options of all blocks, as pairs of name and value.
        first: Options of the first block alone, such as its stride; they override `options`.
    """

    block: Callable
    depth: int
    features: int
    options: tuple[tuple[str, Any], ...] = ()
    first: tuple[tuple[str, Any], ...] = ()

    def options_of(self, i: int) -> dict[str, Any]:
        """The options of block `i`."""
        return dict(self.options + self.first if i == 0 else self.options)


Stage = tuple[Stack, ...]
Stages = tuple[Stage, ...]


def run(
    scope: Scope,
    x: Float[Array, "b h w c"],
    stages: Sequence[Sequence[Stack]],
    shared: Mapping[str, Any],
    drop_path_rate: float,
) -> Float[Array, "b h2 w2 f"]:
    """The blocks of all stages, at the paths `blocks/<stage>/<block>`.

    Captures the last map of each resolution: `stage_1`, `stage_2`, ...

    Args:
        shared: Options of all blocks; a stack's own options override them.
        drop_path_rate: Block `i` of `n` is dropped at the rate `drop_path_rate * i / n`; `i` counts from 0, over all
            stages. The last block's rate is thus a little smaller than `drop_path_rate`, as in timm.
    """
    total, done, level = sum(stack.depth for stage in stages for stack in stage), 0, 0
    for i, stage in enumerate(stages):
        blocks = [(stack, position) for stack in stage for position in range(stack.depth)]
        for j, (stack, position) in enumerate(blocks):
            options = {**shared, "drop_path_rate": drop_path_rate * done / total, **stack.options_of(position)}
            x = scope["blocks"][i][j].call(stack.block, x, stack.features, **options)
            done += 1
        if done == total or stages[i + 1][0].options_of(0).get("stride") == 2:  # the next stage halves the map
            level += 1
            scope.capture(f"stage_{level}", x)
    return x


def stack(
    block: Callable, depth: int, kernel_size, stride: int, features: int, *, first: Mapping[str, Any] = {}, **options
) -> Stage:
    """A stage of one stack.

    Args:
        stride: Of the first block.
        first: More options of the first block alone.
        options: Options of all blocks.
    """
    return (
        Stack(
            block,
            depth,
            features,
            options=(("kernel_size", kernel_size), *options.items()),
            first=(("stride", stride), *first.items()),
        ),
    )


def plain(depth: int, kernel_size, stride: int, features: int, **options) -> Stage:
    """Dense convolutions, each with norm and activation."""
    return stack(conv_norm_act, depth, kernel_size, stride, features, **options)


def ds(depth: int, kernel_size, stride: int, features: int, se_ratio: float = 0.0, **options) -> Stage:
    """Depthwise-separable convolutions."""
    return stack(depthwise_separable, depth, kernel_size, stride, features, se_ratio=se_ratio, **options)


def mb(
    depth: int,
    kernel_size,
    stride: int,
    expand_ratio: float,
    features: int,
    se_ratio: float = 0.0,
    *,
    block: Callable = mbconv,
    **options,
) -> Stage:
    """Inverted bottlenecks, MBConv."""
    options = {"expand_ratio": expand_ratio, "se_ratio": se_ratio, **options}
    return stack(block, depth, kernel_size, stride, features, **options)


fused = partial(mb, block=fused_mbconv)


def scale(
    stages: Stages,
    width: float,
    depth: float | Sequence[float],
    round_width: Callable = round_features,
    round_depth: Callable = math.ceil,
) -> Stages:
    """`stages` with their widths multiplied by `width` and rounded, their depths by `depth`.

    `depth` is one number, or one for each stage.
    """

    def scale_stage(stage: Stage, ratio: float) -> Stage:
        # As in timm: the depth of the whole stage is scaled, then shared out to its stacks in proportion, from the last
        # stack to the first. So the first stack, which changes the resolution, is the last one to get deeper.
        depth = sum(stack.depth for stack in stage)
        scaled = max(1, round_depth(depth * ratio))
        stacks: list[Stack] = []
        for stack in reversed(stage):
            share = max(1, round(stack.depth / depth * scaled))
            depth, scaled = depth - stack.depth, scaled - share
            stacks.insert(0, replace(stack, depth=share, features=round_width(stack.features * width)))
        return tuple(stacks)

    return tuple(map(scale_stage, stages, (depth,) * len(stages) if isinstance(depth, int | float) else depth))
