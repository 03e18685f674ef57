"""One row a variant: width of the first stage, depths, widths of the stem, kinds of block, and options."""

from collections.abc import Callable, Sequence
from functools import partial

import jax

from flaim.models.maxvit._blocks import (
    convnext_block,
    globally,
    inverted_bottleneck,
    max_pool,
    maxvit_block,
    parallel_block,
    pointwise,
    transformer,
)
from flaim.models.maxvit._model import convolutional_stem
from flaim_core import batch_norm, gelu_tanh, layer_norm, relative_position_map, relative_position_mlp, relu

silu = jax.nn.silu

Kind = Callable | Sequence[Callable]


def _variant(width: int, depths: Sequence[int], stem_dims: Sequence[int], *kinds: Kind, **config) -> dict:
    """A network of four stages, the first `width` wide, each next one twice as wide as the one before.

    `kinds`: the kind of block of all stages; or two, of the first two stages and of the last two.
    """
    blocks = tuple(kind for kind in kinds for _ in range(4 // len(kinds)))
    dims = (width, 2 * width, 4 * width, 8 * width)
    return {"dims": dims, "depths": depths, "stem_dims": stem_dims, "blocks": blocks, **config}


def _coatnet(width: int, depths: Sequence[int], stem_width: int, **config) -> dict:
    """The paper's CoAtNet."""
    kinds = inverted_bottleneck, partial(transformer, attend=globally, dense=pointwise)
    head = {"head_hidden": 8 * width}
    return _variant(width, depths, (stem_width, stem_width), *kinds, stem=convolutional_stem, **head, **config)


# The TensorFlow implementation's padding, epsilons and GELU.
_TF: dict = {"norm": partial(batch_norm, eps=1e-3), "act": gelu_tanh, "padding": "same"}
_TF_LAYER_NORM = partial(layer_norm, eps=1e-5)
_TF_BLOCK = partial(
    maxvit_block,
    convolve=partial(inverted_bottleneck, **_TF),
    transform=partial(
        transformer, position_bias=relative_position_map, heads_first=False, norm=_TF_LAYER_NORM, act=gelu_tanh
    ),
)


def _maxvit(width: int, depths: Sequence[int], stem_width: int, input_size: int, **config) -> dict:
    """The paper's MaxViT."""
    stem = partial(convolutional_stem, bias=True, **_TF)
    options = {"stem": stem, "norm": _TF_LAYER_NORM, "head_hidden": 8 * width, "input_size": input_size}
    return _variant(width, depths, (stem_width, stem_width), _TF_BLOCK, **options, **config)


# timm's own models: with SiLU, and with ConvNeXt blocks.
_rw = partial(_variant, stem=partial(convolutional_stem, act=silu))
_next = partial(_variant, stem=partial(convolutional_stem, norm=layer_norm))
_conv = partial(inverted_bottleneck, act=silu, expand_input=True)


def _coat_conv(**options) -> Callable:
    """Inverted bottleneck of timm's later CoAtNets."""
    return partial(_conv, se_ratio=1 / 4, **options)


def _act_first_conv(se_act: Callable = relu, **options) -> Callable:
    """Inverted bottleneck of timm's earlier CoAtNets: an activation follows its first norm too."""
    return _coat_conv(act_first=True, bias=False, se_act=se_act, **options)


def _attention(**options) -> Callable:
    """Transformer block of timm's CoAtNets."""
    return partial(transformer, attend=globally, dense=pointwise, expand_input=True, **options)


_LAYER_SCALE: dict = {"layer_scale_init": 1e-6}
_MLP_BIAS: dict = {"position_bias": relative_position_mlp}
_MLP_BIAS_384: dict = {"position_bias": partial(relative_position_mlp, hidden=384)}
_BATCH_NORM: dict = {"norm": partial(batch_norm, eps=1e-6)}

_MAXVIT = partial(maxvit_block, convolve=partial(_conv, bias=False))
_MAXVIT_MLP_BIAS = partial(_MAXVIT, transform=partial(transformer, **_MLP_BIAS))
_MAXVIT_LAYER_SCALE = partial(_MAXVIT, transform=partial(transformer, **_MLP_BIAS, **_LAYER_SCALE))
_PARALLEL = partial(parallel_block, convolve=partial(_conv, bias=False))
_MAXXVIT = partial(maxvit_block, convolve=convnext_block, transform=partial(transformer, **_MLP_BIAS, **_LAYER_SCALE))
_MAXXVIT_V2 = partial(_MAXXVIT, grids_only=True)
_MAXXVIT_V2_TABLE = partial(_MAXXVIT_V2, transform=partial(transformer, **_LAYER_SCALE))

VARIANTS = {
    "coatnet_0_224": _coatnet(96, (2, 3, 5, 2), 64),
    "coatnet_1_224": _coatnet(96, (2, 6, 14, 2), 64),
    "coatnet_2_224": _coatnet(128, (2, 6, 14, 2), 128),
    "coatnet_3_224": _coatnet(192, (2, 6, 14, 2), 192),
    "coatnet_4_224": _coatnet(192, (2, 12, 28, 2), 192),
    "coatnet_5_224": _coatnet(256, (2, 12, 28, 2), 192, dims=(256, 512, 1280, 2048)),
    "coatnet_pico_rw_224": _rw(64, (2, 3, 5, 2), (32, 64), _coat_conv(), _attention()),
    "coatnet_nano_rw_224": _rw(64, (3, 4, 6, 3), (32, 64), _coat_conv(pool_stride=True), _attention()),
    "coatnet_0_rw_224": _rw(
        96,
        (2, 3, 7, 2),
        (32, 64),
        _act_first_conv(se_early=True, pool_stride=True),
        _attention(shortcut_bias=False),
    ),
    "coatnet_1_rw_224": _rw(
        96, (2, 6, 14, 2), (32, 64), _act_first_conv(se_early=True), _attention(shortcut_bias=False)
    ),
    "coatnet_2_rw_224": _rw(128, (2, 6, 14, 2), (64, 128), _act_first_conv(silu), _attention()),
    "coatnet_3_rw_224": _rw(
        192, (2, 6, 14, 2), (96, 192), _act_first_conv(silu), _attention(**_LAYER_SCALE), n_classes=11821
    ),
    "coatnet_bn_0_rw_224": _rw(
        96,
        (2, 3, 7, 2),
        (32, 64),
        _act_first_conv(se_early=True),
        _attention(shortcut_bias=False, **_BATCH_NORM),
        **_BATCH_NORM,
    ),
    "coatnet_nano_cc_224": _rw(
        64,
        (3, 4, 6, 3),
        (32, 64),
        _act_first_conv(pool_stride=True),
        (_act_first_conv(pool_stride=True), _attention()),
    ),
    "coatnet_rmlp_nano_rw_224": _rw(64, (3, 4, 6, 3), (32, 64), _coat_conv(), _attention(**_MLP_BIAS_384)),
    "coatnet_rmlp_0_rw_224": _rw(96, (2, 3, 7, 2), (32, 64), _act_first_conv(), _attention(**_MLP_BIAS)),
    "coatnet_rmlp_1_rw_224": _rw(
        96,
        (2, 6, 14, 2),
        (32, 64),
        _act_first_conv(se_early=True, pool_stride=True, pool=max_pool),
        _attention(shortcut_bias=False, pool=max_pool, **_MLP_BIAS_384),
    ),
    "coatnet_rmlp_1_rw2_224": _rw(96, (2, 6, 14, 2), (32, 64), _act_first_conv(), _attention(**_MLP_BIAS)),
    "coatnet_rmlp_2_rw_224": _rw(
        128, (2, 6, 14, 2), (64, 128), _act_first_conv(silu), _attention(**_MLP_BIAS, **_LAYER_SCALE)
    ),
    "coatnet_rmlp_2_rw_384": _rw(
        128, (2, 6, 14, 2), (64, 128), _act_first_conv(silu), _attention(**_MLP_BIAS, **_LAYER_SCALE), input_size=384
    ),
    "coatnet_rmlp_3_rw_224": _rw(
        192, (2, 6, 14, 2), (96, 192), _act_first_conv(silu), _attention(**_MLP_BIAS, **_LAYER_SCALE)
    ),
    "coatnext_nano_rw_224": _next(
        64, (3, 4, 6, 3), (32, 64), partial(convnext_block, layer_scale_init=1e-5), _attention()
    ),
    "maxvit_pico_rw_256": _rw(32, (2, 2, 5, 2), (24, 32), _MAXVIT, input_size=256),
    "maxvit_nano_rw_256": _rw(64, (1, 2, 3, 1), (32, 64), _MAXVIT, input_size=256),
    "maxvit_tiny_rw_224": _rw(64, (2, 2, 5, 2), (32, 64), _MAXVIT),
    "maxvit_tiny_rw_256": _rw(64, (2, 2, 5, 2), (32, 64), _MAXVIT, input_size=256),
    "maxvit_tiny_pm_256": _rw(64, (2, 2, 5, 2), (32, 64), _PARALLEL, input_size=256),
    "maxvit_rmlp_pico_rw_256": _rw(32, (2, 2, 5, 2), (24, 32), _MAXVIT_MLP_BIAS, input_size=256),
    "maxvit_rmlp_nano_rw_256": _rw(64, (1, 2, 3, 1), (32, 64), _MAXVIT_MLP_BIAS, input_size=256),
    "maxvit_rmlp_tiny_rw_256": _rw(64, (2, 2, 5, 2), (32, 64), _MAXVIT_MLP_BIAS, input_size=256),
    "maxvit_rmlp_small_rw_224": _rw(96, (2, 2, 5, 2), (32, 64), _MAXVIT_LAYER_SCALE),
    "maxvit_rmlp_small_rw_256": _rw(96, (2, 2, 5, 2), (32, 64), _MAXVIT_LAYER_SCALE, input_size=256),
    "maxvit_rmlp_base_rw_224": _rw(96, (2, 6, 14, 2), (32, 64), _MAXVIT_MLP_BIAS, head_hidden=768),
    "maxvit_rmlp_base_rw_384": _rw(96, (2, 6, 14, 2), (32, 64), _MAXVIT_MLP_BIAS, head_hidden=768, input_size=384),
    "maxxvit_rmlp_nano_rw_256": _next(64, (1, 2, 3, 1), (32, 64), _MAXXVIT, input_size=256),
    "maxxvit_rmlp_tiny_rw_256": _next(64, (2, 2, 5, 2), (32, 64), _MAXXVIT, input_size=256),
    "maxxvit_rmlp_small_rw_256": _next(96, (2, 2, 5, 2), (48, 96), _MAXXVIT, input_size=256),
    "maxxvitv2_nano_rw_256": _next(96, (1, 2, 3, 1), (48, 96), _MAXXVIT_V2_TABLE, input_size=256),
    "maxxvitv2_rmlp_base_rw_224": _next(128, (2, 6, 12, 2), (64, 128), _MAXXVIT_V2),
    "maxxvitv2_rmlp_base_rw_384": _next(128, (2, 6, 12, 2), (64, 128), _MAXXVIT_V2, input_size=384),
    "maxxvitv2_rmlp_large_rw_224": _next(160, (2, 6, 16, 2), (80, 160), _MAXXVIT_V2, head_hidden=1280),
    "maxvit_tiny_tf_224": _maxvit(64, (2, 2, 5, 2), 64, 224),
    "maxvit_tiny_tf_384": _maxvit(64, (2, 2, 5, 2), 64, 384),
    "maxvit_tiny_tf_512": _maxvit(64, (2, 2, 5, 2), 64, 512),
    "maxvit_small_tf_224": _maxvit(96, (2, 2, 5, 2), 64, 224),
    "maxvit_small_tf_384": _maxvit(96, (2, 2, 5, 2), 64, 384),
    "maxvit_small_tf_512": _maxvit(96, (2, 2, 5, 2), 64, 512),
    "maxvit_base_tf_224": _maxvit(96, (2, 6, 14, 2), 64, 224),
    "maxvit_base_tf_384": _maxvit(96, (2, 6, 14, 2), 64, 384),
    "maxvit_base_tf_512": _maxvit(96, (2, 6, 14, 2), 64, 512),
    "maxvit_large_tf_224": _maxvit(128, (2, 6, 14, 2), 128, 224),
    "maxvit_large_tf_384": _maxvit(128, (2, 6, 14, 2), 128, 384),
    "maxvit_large_tf_512": _maxvit(128, (2, 6, 14, 2), 128, 512),
    "maxvit_xlarge_tf_224": _maxvit(192, (2, 6, 14, 2), 192, 224, n_classes=21843),
    "maxvit_xlarge_tf_384": _maxvit(192, (2, 6, 14, 2), 192, 384),
    "maxvit_xlarge_tf_512": _maxvit(192, (2, 6, 14, 2), 192, 512),
    "test_maxvit": _rw(32, (1, 1, 1, 1), (16, 32), _MAXVIT, dims=(32, 64, 96, 128), input_size=160),
    "test_coatnet": _rw(
        32,
        (1, 1, 2, 1),
        (16, 32),
        _coat_conv(pool_stride=True),
        _attention(),
        dims=(32, 64, 96, 128),
        input_size=160,
    ),
}
