"""MobileNetV3 and PP-LCNet: the blocks of EfficientNet with hard activations, and a head that pools first.

Howard et al., "Searching for MobileNetV3" (2019); Cui et al., "PP-LCNet" (2021). The reference implementation is timm's
`mobilenetv3.py`; Keras' networks are those that timm converted from TensorFlow, `tf_*`, at every width.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier, kernel, ops, relu, round_features, squeeze_excite
from flaim_core import conv as convolution
from flaim_core.layers.stacks import Stack, Stages, conv, ds, mb, run, scale

hard_swish = jax.nn.hard_swish
_round = partial(round_features, multiple=1)


@kernel
def hard_squeeze_excite(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    hidden: int,
    act: Callable,
    round_hidden: Callable = round_features,
    inner_act: Callable | None = relu,
) -> Float[Array, "b h w c"]:
    """Squeeze-and-excitation with a hard sigmoid, a quarter as wide as `x` instead of `hidden`.

    `inner_act` None is the block's own `act`.
    """
    return squeeze_excite(
        scope,
        x,
        hidden=round_hidden(x.shape[-1] / 4),
        act=inner_act or act,
        gate=jax.nn.hard_sigmoid,
        names=("conv_reduce", "conv_expand"),
    )


@kernel
def mobilenetv3(
    scope: Scope,
    x: Float[Array, "b h w c"],
    *,
    n_classes: int,
    stages: Sequence[Sequence[Stack]],
    stem_features: int = 16,
    head_features: int = 1280,
    head_bias: bool = True,
    padding: int | str | None = None,
    norm: Callable = batch_norm,
    act: Callable = hard_swish,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A strided convolution, stages of stacks of blocks, pooling, a linear layer and a classifier.

    Args:
        n_classes: Positive: logits; -1: the classifier's input; 0: the last feature map.
        stages: The stacks of each stage; what a stack's own options say goes before `padding`, `norm`, `act`.
        head_features: Width of the layer before the classifier.
        padding, norm, act: As in `flaim_core.mbconv`.
        drop_rate: Of the classifier's input.
        drop_path_rate: The rate that growing linearly from 0 at the first block would reach one after the last.
    """
    x = convolution(scope["conv_stem"], x, stem_features, kernel_size=3, stride=2, padding=padding, bias=False)
    x = act(norm(scope["bn1"], x))
    scope.capture("stage_0", x)
    x = run(scope, x, stages, dict(padding=padding, norm=norm, act=act), drop_path_rate)
    if n_classes == 0:
        return x
    pooled = ops.global_avg_pool(x)[:, None, None]
    x = act(convolution(scope["conv_head"], pooled, head_features, kernel_size=1, bias=head_bias))[:, 0, 0]
    return classifier(scope["classifier"], x, n_classes, drop_rate=drop_rate)


# Columns: depth, kernel size, stride of the first block, expansion (not of `ds` and `conv`), width, and where there is
# squeeze-and-excitation its ratio, which is always a quarter.
# fmt: off
def _large(kernel_size: int = 5, se_ratio: float = 0.25, attention: Callable = hard_squeeze_excite, **first) -> Stages:
    block = partial(mb, channel_attention=attention)
    return (
        ds(1, 3, 1, 16, act=relu, **first), mb(1, 3, 2, 4, 24, act=relu) + mb(1, 3, 1, 3, 24, act=relu),
        block(3, kernel_size, 2, 3, 40, se_ratio, act=relu),
        mb(1, 3, 2, 6, 80) + mb(1, 3, 1, 2.5, 80) + mb(2, 3, 1, 2.3, 80),
        block(2, 3, 1, 6, 112, se_ratio), block(3, kernel_size, 2, 6, 160, se_ratio), conv(1, 1, 1, 960),
    )


def _small(kernel_size: int = 5, se_ratio: float = 0.25) -> Stages:
    block = partial(mb, channel_attention=hard_squeeze_excite)
    return (
        ds(1, 3, 2, 16, se_ratio, act=relu, channel_attention=hard_squeeze_excite),
        mb(1, 3, 2, 4.5, 24, act=relu) + mb(1, 3, 1, 3.67, 24, act=relu),
        block(1, kernel_size, 2, 4, 40, se_ratio) + block(2, kernel_size, 1, 6, 40, se_ratio),
        block(2, kernel_size, 1, 3, 48, se_ratio), block(3, kernel_size, 2, 6, 96, se_ratio), conv(1, 1, 1, 576),
    )


def _lcnet() -> Stages:
    block = partial(ds, residual=False, activate_output=True)
    gate = {"channel_attention": partial(hard_squeeze_excite, round_hidden=_round)}
    return (
        block(1, 3, 1, 32), block(2, 3, 2, 64), block(2, 3, 2, 128), block(1, 3, 2, 256) + block(1, 5, 1, 256),
        block(4, 5, 1, 256), block(2, 5, 2, 512, 0.25, **gate),
    )
# fmt: on


def _variant(stages: Stages, width: float = 1.0, depth: float = 1.0, *, stem: int = 16, **config) -> dict:
    """A network scaled in width, that of its stem included, and depth."""
    return {"stages": scale(stages, width, depth), "stem_features": round_features(stem * width), **config}


def _v3(size: str, width: float = 1.0, depth: float = 1.0, *, minimal: bool = False, **config) -> dict:
    """A MobileNetV3, `"large"` or `"small"`; its stem does not get narrower than three quarters."""
    stages = {"large": _large, "small": _small}[size](*((3, 0.0) if minimal else ()))
    head = {"large": 1280, "small": 1024}[size]
    variant = _variant(stages, width, depth, head_features=head, act=relu if minimal else hard_swish, **config)
    return variant if width >= 0.75 else {**variant, "stem_features": 16}


_EPS_1E_3 = partial(batch_norm, eps=1e-3)
_TF: dict = {"padding": "same", "norm": _EPS_1E_3}  # what networks converted from TensorFlow keep of it
_OWN_ACT = partial(hard_squeeze_excite, round_hidden=_round, inner_act=None)

VARIANTS = {
    "mobilenetv3_large_075": _v3("large", 0.75),
    "mobilenetv3_large_100": _v3("large"),
    "mobilenetv3_large_150d": _v3("large", 1.5, 1.2, input_size=256),
    "mobilenetv3_small_050": _v3("small", 0.5),
    "mobilenetv3_small_075": _v3("small", 0.75),
    "mobilenetv3_small_100": _v3("small"),
    "mobilenetv3_rw": _variant(_large(attention=_OWN_ACT, residual=False), head_bias=False, norm=_EPS_1E_3),
    "tf_mobilenetv3_large_075": _v3("large", 0.75, **_TF),
    "tf_mobilenetv3_large_100": _v3("large", **_TF),
    "tf_mobilenetv3_large_minimal_100": _v3("large", minimal=True, **_TF),
    "tf_mobilenetv3_small_075": _v3("small", 0.75, **_TF),
    "tf_mobilenetv3_small_100": _v3("small", **_TF),
    "tf_mobilenetv3_small_minimal_100": _v3("small", minimal=True, **_TF),
    **{f"lcnet_{name}": _variant(_lcnet(), int(name) / 100) for name in ("035", "050", "075", "100", "150")},
}

FAMILY = Family(
    mobilenetv3,
    "classifier",
    VARIANTS,
    choices={"Stack": Stack, "hard_squeeze_excite": hard_squeeze_excite},
    timm=Timm(("mobilenetv3",)),
    tiny=("mobilenetv3_small_100", {"input_size": 32, "stages": VARIANTS["mobilenetv3_small_100"]["stages"][:3]}),
)
