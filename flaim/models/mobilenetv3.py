"""MobileNetV3 and PP-LCNet: the blocks of EfficientNet with hard activations, and a head that pools first.

Howard et al., "Searching for MobileNetV3" (2019); Cui et al., "PP-LCNet" (2021). The reference implementation is timm's
`mobilenetv3.py`; Keras' networks are the same as timm's `tf_*`, at every width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
from jaxtyping import Array, Float

from flaim.family import Family, Timm
from flaim_core import Scope, batch_norm, classifier, conv, kernel, ops, relu, round_features, squeeze_excite
from flaim_core.layers.stacks import Stack, Stages, ds, mb, plain, run, scale

hard_swish = jax.nn.hard_swish
_nearest = partial(round_features, multiple=1)  # to a whole number


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
    """Squeeze-and-excitation with a hard sigmoid.

    Its hidden width is a quarter of the width of `x`, rounded by `round_hidden`. It takes a `hidden` because every
    channel attention of `flaim_core.mbconv` does, and ignores it. `inner_act` follows its first layer; None for `act`.
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
    padding: int | Literal["same"] | None = None,
    norm: Callable = batch_norm,
    act: Callable = hard_swish,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> Float[Array, "b ..."]:
    """A strided convolution, stages of stacks of blocks, pooling, a linear layer and a classifier.

    Args:
        n_classes: Positive: logits; -1: the classifier's input, `head_features` wide; 0: the last feature map.
        stages: The stacks of each stage; their own options override `padding`, `norm` and `act`.
        head_features: Width of the layer before the classifier.
        padding, norm, act: As in `flaim_core.mbconv`.
        drop_rate: Dropout rate of the classifier's input.
        drop_path_rate: Stochastic depth: block `i` of `n`, counted from 0, is dropped at `drop_path_rate * i / n`.
    """
    x = conv(scope["conv_stem"], x, stem_features, kernel_size=3, stride=2, padding=padding, bias=False)
    x = act(norm(scope["bn1"], x))
    scope.capture("stage_0", x)
    x = run(scope, x, stages, dict(padding=padding, norm=norm, act=act), drop_path_rate)
    if n_classes == 0:
        return x
    pooled = ops.global_avg_pool(x)[:, None, None]
    x = act(conv(scope["conv_head"], pooled, head_features, kernel_size=1, bias=head_bias))[:, 0, 0]
    return classifier(scope["classifier"], x, n_classes, drop_rate=drop_rate)


# One stage a line; `flaim_core.layers.stacks` says what the columns mean. The ratio of squeeze-and-excitation says only
# whether there is one, since `hard_squeeze_excite` computes its hidden width itself.
def _large(kernel_size: int = 5, se_ratio: float = 0.25, attention: Callable = hard_squeeze_excite) -> Stages:
    gated = partial(mb, channel_attention=attention)
    return (
        ds(1, 3, 1, 16, act=relu),
        mb(1, 3, 2, 4, 24, act=relu) + mb(1, 3, 1, 3, 24, act=relu),
        gated(3, kernel_size, 2, 3, 40, se_ratio, act=relu),
        mb(1, 3, 2, 6, 80) + mb(1, 3, 1, 2.5, 80) + mb(2, 3, 1, 2.3, 80),
        gated(2, 3, 1, 6, 112, se_ratio),
        gated(3, kernel_size, 2, 6, 160, se_ratio),
        plain(1, 1, 1, 960),
    )


def _small(kernel_size: int = 5, se_ratio: float = 0.25) -> Stages:
    gated = partial(mb, channel_attention=hard_squeeze_excite)
    return (
        ds(1, 3, 2, 16, se_ratio, act=relu, channel_attention=hard_squeeze_excite),
        mb(1, 3, 2, 4.5, 24, act=relu) + mb(1, 3, 1, 3.67, 24, act=relu),
        gated(1, kernel_size, 2, 4, 40, se_ratio) + gated(2, kernel_size, 1, 6, 40, se_ratio),
        gated(2, kernel_size, 1, 3, 48, se_ratio),
        gated(3, kernel_size, 2, 6, 96, se_ratio),
        plain(1, 1, 1, 576),
    )


def _lcnet_stages() -> Stages:
    block = partial(ds, residual=False, activate_output=True)
    attention = partial(hard_squeeze_excite, round_hidden=_nearest)
    return (
        block(1, 3, 1, 32),
        block(2, 3, 2, 64),
        block(2, 3, 2, 128),
        block(1, 3, 2, 256) + block(1, 5, 1, 256),
        block(4, 5, 1, 256),
        block(2, 5, 2, 512, 0.25, channel_attention=attention),
    )


def _v3(
    stages: Stages, head: int, width: float = 1.0, depth: float = 1.0, *, act: Callable = hard_swish, **config
) -> dict:
    """A MobileNetV3, scaled in width and depth; its stem is never narrower than 16 channels."""
    stem = max(16, round_features(16 * width))
    return {"stages": scale(stages, width, depth), "stem_features": stem, "head_features": head, "act": act, **config}


def _lcnet(width: float) -> dict:
    """A PP-LCNet, scaled in width."""
    return {"stages": scale(_lcnet_stages(), width, 1.0), "stem_features": round_features(16 * width)}


_LARGE, _LARGE_MINIMAL, _SMALL, _SMALL_MINIMAL = _large(), _large(3, 0.0), _small(), _small(3, 0.0)
# timm's own MobileNetV3: no shortcut in the first block, the block's activation inside squeeze-and-excitation.
_OWN_ACT = partial(hard_squeeze_excite, round_hidden=_nearest, inner_act=None)
_RW = (ds(1, 3, 1, 16, act=relu, residual=False), *_large(attention=_OWN_ACT)[1:])

_EPS_1E_3 = partial(batch_norm, eps=1e-3)
_TF: dict = {"padding": "same", "norm": _EPS_1E_3}  # of networks converted from TensorFlow

VARIANTS = {
    "mobilenetv3_large_075": _v3(_LARGE, 1280, 0.75),
    "mobilenetv3_large_100": _v3(_LARGE, 1280),
    "mobilenetv3_large_150d": _v3(_LARGE, 1280, 1.5, 1.2, input_size=256),
    "mobilenetv3_small_050": _v3(_SMALL, 1024, 0.5),
    "mobilenetv3_small_075": _v3(_SMALL, 1024, 0.75),
    "mobilenetv3_small_100": _v3(_SMALL, 1024),
    "mobilenetv3_rw": {"stages": _RW, "stem_features": 16, "head_bias": False, "norm": _EPS_1E_3},
    "tf_mobilenetv3_large_075": _v3(_LARGE, 1280, 0.75, **_TF),
    "tf_mobilenetv3_large_100": _v3(_LARGE, 1280, **_TF),
    "tf_mobilenetv3_large_minimal_100": _v3(_LARGE_MINIMAL, 1280, act=relu, **_TF),
    "tf_mobilenetv3_small_075": _v3(_SMALL, 1024, 0.75, **_TF),
    "tf_mobilenetv3_small_100": _v3(_SMALL, 1024, **_TF),
    "tf_mobilenetv3_small_minimal_100": _v3(_SMALL_MINIMAL, 1024, act=relu, **_TF),
    "lcnet_035": _lcnet(0.35),
    "lcnet_050": _lcnet(0.5),
    "lcnet_075": _lcnet(0.75),
    "lcnet_100": _lcnet(1.0),
    "lcnet_150": _lcnet(1.5),
}

FAMILY = Family(
    mobilenetv3,
    "classifier",
    VARIANTS,
    choices={"Stack": Stack, "hard_squeeze_excite": hard_squeeze_excite},
    timm=Timm(("mobilenetv3",)),
    tiny=("mobilenetv3_small_100", {"input_size": 32, "stages": _SMALL[:3]}),
)
