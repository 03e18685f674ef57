"""Xception: depthwise-separable convolutions with residual connections.

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017). The reference implementation is timm's
`xception.py`, whose `legacy_xception` has the paper's weights, converted from Keras. Keras pads the max-poolings of
maps with even sides only at the bottom and right, and its norms have an epsilon of 1e-3: `padding` and `norm_eps`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier_head, conv, kernel, ops, relu, resolve_padding


@kernel
def separable_conv(scope: Scope, x: Float[Array, "b h w c"], features: int) -> Float[Array, "b h w f"]:
    """A depthwise 3x3 convolution (`conv1`) and a 1x1 one (`pointwise`), with nothing in between."""
    x = conv(scope["conv1"], x, x.shape[-1], kernel_size=3, groups=x.shape[-1], bias=False)
    return conv(scope["pointwise"], x, features, kernel_size=1, bias=False)


@kernel
def block(
    scope: Scope,
    x: Float[Array, "b h w c"],
    widths: Sequence[int],
    *,
    stride: int,
    norm: Callable,
    padding: int | str,
    activate_input: bool = True,
) -> Float[Array, "b h2 w2 f"]:
    """Separable convolutions of these widths, max-pooling, plus the input, projected where the shape changes."""
    y, position = x, 0
    for i, width in enumerate(widths):
        if i > 0 or activate_input:
            y, position = relu(y), position + 1
        y = separable_conv(scope["rep"][position], y, width)
        y = norm(scope["rep"][position + 1], y)
        position += 2
    if stride > 1:
        pads = resolve_padding(padding, y.shape[1:3], (3, 3), (stride, stride))
        y = ops.max_pool(y, (3, 3), (stride, stride), pads)
    if stride > 1 or x.shape[-1] != widths[-1]:
        x = conv(scope["skip"], x, widths[-1], kernel_size=1, stride=stride, bias=False)
        x = norm(scope["skipbn"], x)
    return y + x


@kernel
def xception(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    stem_widths: tuple[int, int] = (32, 64),
    entry_widths: Sequence[int] = (128, 256, 728),
    middle_depth: int = 8,
    exit_widths: tuple[int, int, int] = (1024, 1536, 2048),
    padding: int | str = 1,
    norm_eps: float = 1e-5,
    drop_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """Two convolutions, then the entry, middle and exit flow.

    `stage_i` is activated, as timm's feature maps are.

    Args:
        entry_widths: One width per block, which halves the map; the last one is the width of the middle flow too.
        middle_depth: Blocks of the middle flow.
        exit_widths: Widths of the last block, which halves the map, and of the two separable convolutions after it.
        padding: Padding of the max-poolings, in the form that `conv` takes.
    """
    norm = partial(batch_norm, eps=norm_eps)
    for i, width in enumerate(stem_widths, 1):
        x = conv(scope[f"conv{i}"], x, width, kernel_size=3, stride=2 if i == 1 else 1, padding=0, bias=False)
        x = relu(norm(scope[f"bn{i}"], x))
    scope.capture("stage_0", x)

    options: dict = dict(norm=norm, padding=padding)
    for i, width in enumerate(entry_widths, 1):
        if i > 1:
            scope.capture(f"stage_{i - 1}", relu(x))
        x = scope[f"block{i}"].call(block, x, (width, width), stride=2, activate_input=i > 1, **options)
    middle, done = x.shape[-1], len(entry_widths)
    for i in range(done + 1, done + 1 + middle_depth):
        x = scope[f"block{i}"].call(block, x, (middle,) * 3, stride=1, **options)
    scope.capture(f"stage_{done}", relu(x))
    x = scope[f"block{done + middle_depth + 1}"].call(block, x, (middle, exit_widths[0]), stride=2, **options)

    for i, width in enumerate(exit_widths[1:], 3):
        x = relu(norm(scope[f"bn{i}"], separable_conv(scope[f"conv{i}"], x, width)))
    scope.capture(f"stage_{done + 1}", x)
    return classifier_head(scope["fc"], x, n_classes, drop_rate=drop_rate)


VARIANTS = {"legacy_xception": {"input_size": 299}}

FAMILY = Family(
    xception,
    "fc",
    VARIANTS,
    timm=Timm(("xception",)),
    tiny=(
        "legacy_xception",
        {
            "input_size": 64,
            "stem_widths": (8, 16),
            "entry_widths": (16, 32),
            "middle_depth": 2,
            "exit_widths": (48, 64, 64),
        },
    ),
)
