"""Stages of stacks of mobile convolution blocks, as data: what EfficientNet and its relatives consist of."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Array, Float

from flaim_core.layers._mbconv import conv_norm_act, depthwise_separable, mbconv, round_features
from flaim_core.scope import Scope


@dataclass(frozen=True)
class Stack:
    """`depth` blocks in a row: their kernel, width, options; `first` holds the first one's own options (its stride)."""

    block: Callable
    depth: int
    features: int
    options: tuple[tuple[str, Any], ...] = ()
    first: tuple[tuple[str, Any], ...] = ()

    def options_of(self, i: int) -> dict[str, Any]:
        """The options of block `i`."""
        return dict(self.options + self.first if i == 0 else self.options)


Stages = tuple[tuple[Stack, ...], ...]


def run(
    scope: Scope,
    x: Float[Array, "b h w c"],
    stages: Sequence[Sequence[Stack]],
    shared: Mapping[str, Any],
    drop_path_rate: float,
) -> Float[Array, "b h2 w2 f"]:
    """The blocks of all stages, paths `blocks/<stage>/<block>`; `stage_<i>` is the last map of a resolution.

    `shared` are options of every block where its stack's own say nothing else.
    """
    blocks = [[(stack, i) for stack in stage for i in range(stack.depth)] for stage in stages]
    total, done, level = sum(map(len, blocks)), 0, 0
    for stage, stacks in enumerate(blocks):
        for i, (stack, position) in enumerate(stacks):
            options = {**shared, "drop_path_rate": drop_path_rate * done / total, **stack.options_of(position)}
            x = scope["blocks"][stage][i].call(stack.block, x, stack.features, **options)
            done += 1
        if done == total or dict(stages[stage + 1][0].first).get("stride") == 2:  # the last of this resolution
            level += 1
            scope.capture(f"stage_{level}", x)
    return x


def stack(block: Callable, depth: int, kernel_size, stride: int, features: int, **options) -> tuple[Stack, ...]:
    """A stage of one stack; `+` joins stacks of one stage."""
    options = {"kernel_size": kernel_size, **options}
    return (Stack(block, depth, features, tuple(options.items()), (("stride", stride),)),)


def conv(depth: int, kernel_size, stride: int, features: int, **options) -> tuple[Stack, ...]:
    """Plain convolutions."""
    return stack(conv_norm_act, depth, kernel_size, stride, features, **options)


def ds(depth: int, kernel_size, stride: int, features: int, se_ratio: float = 0.0, **options) -> tuple[Stack, ...]:
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
) -> tuple[Stack, ...]:
    """Inverted bottlenecks."""
    options = {"expand_ratio": expand_ratio, "se_ratio": se_ratio, **options}
    return stack(block, depth, kernel_size, stride, features, **options)


def scale(
    stages: Stages,
    width: float,
    depth: float | tuple[float, ...],
    round_width: Callable = round_features,
    round_depth: Callable = math.ceil,
) -> Stages:
    """`stages` with widths and depths multiplied and rounded; `depth` is a number, or one for each stage."""

    def scale_stage(stage: tuple[Stack, ...], ratio: float) -> tuple[Stack, ...]:
        # A stage's depth is scaled as a whole and dealt out to its stacks from the last one, so that the first, which
        # changes the resolution, is the last to grow.
        depth = sum(stack.depth for stack in stage)
        scaled = max(1, round_depth(depth * ratio))
        stacks: list[Stack] = []
        for stack in reversed(stage):
            share = max(1, round(stack.depth / depth * scaled))
            depth, scaled = depth - stack.depth, scaled - share
            stacks.insert(0, replace(stack, depth=share, features=round_width(stack.features * width)))
        return tuple(stacks)

    return tuple(map(scale_stage, stages, depth if isinstance(depth, tuple) else (depth,) * len(stages)))
