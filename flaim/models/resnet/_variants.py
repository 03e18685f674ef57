"""The published ResNets, a line each."""

from functools import partial

from flaim.models.resnet._blocks import (
    basic,
    bottleneck,
    selective_kernel_basic,
    selective_kernel_bottleneck,
    split_attention_bottleneck,
    squeeze_excite_rounded,
)
from flaim.models.resnet._model import convolution
from flaim_core import efficient_channel_attention, group_norm, ops
from flaim_core.layers.pooling import average_pooling, blurred_max_pooling, halve

_R10 = {"branch": basic, "depths": (1, 1, 1, 1)}
_R14 = {"branch": bottleneck, "depths": (1, 1, 1, 1)}
_R18 = {"branch": basic, "depths": (2, 2, 2, 2)}
_R26 = {"branch": bottleneck, "depths": (2, 2, 2, 2)}
_R34 = {"branch": basic, "depths": (3, 4, 6, 3)}
_R50 = {"branch": bottleneck, "depths": (3, 4, 6, 3)}
_R101 = {"branch": bottleneck, "depths": (3, 4, 23, 3)}
_R152 = {"branch": bottleneck, "depths": (3, 8, 36, 3)}
_R200 = {"branch": bottleneck, "depths": (3, 24, 36, 3)}
_R201 = {"branch": bottleneck, "depths": (3, 24, 36, 4)}
_R269 = {"branch": bottleneck, "depths": (3, 30, 48, 8)}

_C = {"stem_widths": (32, 32, 64)}
_D = {"stem_widths": (32, 32, 64), "average_shortcut": True}
_S = {"stem_widths": (64, 64, 128)}
_E = {"stem_widths": (64, 64, 128), "average_shortcut": True}
_T = {"stem_widths": (24, 32, 64), "average_shortcut": True}
_AVERAGE = {"anti_alias": halve, "stem_pool": average_pooling}
_BLUR = {"anti_alias": ops.blur_pool, "stem_pool": blurred_max_pooling}
_SE = {"channel_attention": squeeze_excite_rounded}
_ECA = {"channel_attention": efficient_channel_attention}
_SPLIT = {"branch": split_attention_bottleneck}
_SK = {"branch": partial(selective_kernel_basic, ratio=1 / 8, multiple=16)}
_SK_WIDE = {"branch": selective_kernel_bottleneck}
_SK_PAPER = {"branch": partial(selective_kernel_bottleneck, multiple=32, split_input=False)}
_RS = _D | {"stem_pool": convolution, "channel_attention": partial(squeeze_excite_rounded, ratio=0.25)}


def _groups(groups: int, base_width: int) -> dict[str, int]:
    """ResNeXt's `<groups>x<base_width>d`."""
    return {"groups": groups, "base_width": base_width}


def _split(radix: int) -> dict[str, partial]:
    """ResNeSt's `<radix>s`, with the pooling before the split attention."""
    return {"branch": partial(split_attention_bottleneck, radix=radix, pool_first=True)}


VARIANTS = {
    "resnet10t": _R10 | _T | {"input_size": 176},
    "resnet14t": _R14 | _T | {"input_size": 176},
    "resnet18": _R18,
    "resnet18d": _R18 | _D,
    "resnet26": _R26,
    "resnet26d": _R26 | _D,
    "resnet26t": _R26 | _T | {"input_size": 256},
    "resnet34": _R34,
    "resnet34d": _R34 | _D,
    "resnet50": _R50,
    "resnet50c": _R50 | _C,
    "resnet50d": _R50 | _D,
    "resnet50s": _R50 | _S,
    "resnet50t": _R50 | _T,
    "resnet50_gn": _R50 | {"norm": group_norm},
    "resnet101": _R101,
    "resnet101c": _R101 | _C,
    "resnet101d": _R101 | _D | {"input_size": 256},
    "resnet101s": _R101 | _S,
    "resnet152": _R152,
    "resnet152c": _R152 | _C,
    "resnet152d": _R152 | _D | {"input_size": 256},
    "resnet152s": _R152 | _S,
    "resnet200": _R200,
    "resnet200d": _R200 | _D | {"input_size": 256},
    "resnetaa34d": _R34 | _D | _AVERAGE,
    "resnetaa50": _R50 | _AVERAGE,
    "resnetaa50d": _R50 | _D | _AVERAGE,
    "resnetaa101d": _R101 | _D | _AVERAGE,
    "resnetblur18": _R18 | _BLUR,
    "resnetblur50": _R50 | _BLUR,
    "resnetblur50d": _R50 | _D | _BLUR,
    "resnetblur101d": _R101 | _D | _BLUR,
    "resnetrs50": _RS | {"depths": (3, 4, 6, 3), "input_size": 160},
    "resnetrs101": _RS | {"depths": (3, 4, 23, 3), "input_size": 192},
    "resnetrs152": _RS | {"depths": (3, 8, 36, 3), "input_size": 256},
    "resnetrs200": _RS | {"depths": (3, 24, 36, 3), "input_size": 256},
    "resnetrs270": _RS | {"depths": (4, 29, 53, 4), "input_size": 256},
    "resnetrs350": _RS | {"depths": (4, 36, 72, 4), "input_size": 288},
    "resnetrs420": _RS | {"depths": (4, 44, 87, 4), "input_size": 320},
    "resnext50_32x4d": _R50 | _groups(32, 4),
    "resnext50d_32x4d": _R50 | _groups(32, 4) | _D,
    "resnext101_32x4d": _R101 | _groups(32, 4),
    "resnext101_32x8d": _R101 | _groups(32, 8),
    "resnext101_32x16d": _R101 | _groups(32, 16),
    "resnext101_32x32d": _R101 | _groups(32, 32),
    "resnext101_32x48d": _R101 | _groups(32, 48),
    "resnext101_64x4d": _R101 | _groups(64, 4),
    "wide_resnet50_2": _R50 | {"base_width": 128},
    "wide_resnet101_2": _R101 | {"base_width": 128},
    "seresnet18": _R18 | _SE,
    "seresnet34": _R34 | _SE,
    "seresnet50": _R50 | _SE,
    "seresnet50t": _R50 | _T | _SE,
    "seresnet101": _R101 | _SE,
    "seresnet152": _R152 | _SE,
    "seresnet152d": _R152 | _D | _SE | {"input_size": 256},
    "seresnet200d": _R200 | _D | _SE | {"input_size": 256},
    "seresnet269d": _R269 | _D | _SE | {"input_size": 256},
    "seresnetaa50d": _R50 | _D | _SE | _AVERAGE,
    "seresnext26d_32x4d": _R26 | _groups(32, 4) | _D | _SE,
    "seresnext26t_32x4d": _R26 | _groups(32, 4) | _T | _SE,
    "seresnext50_32x4d": _R50 | _groups(32, 4) | _SE,
    "seresnext101_32x4d": _R101 | _groups(32, 4) | _SE,
    "seresnext101_32x8d": _R101 | _groups(32, 8) | _SE,
    "seresnext101_64x4d": _R101 | _groups(64, 4) | _SE,
    "seresnext101d_32x8d": _R101 | _groups(32, 8) | _D | _SE,
    "seresnextaa101d_32x8d": _R101 | _groups(32, 8) | _D | _SE | _AVERAGE | {"input_size": 288},
    "seresnextaa201d_32x8d": _R201 | _groups(32, 8) | _E | _SE | _AVERAGE | {"input_size": 384},
    "senet154": _R152 | _groups(64, 4) | _S | _SE | {"shortcut_kernel_size": 3, "first_reduction": 2},
    "ecaresnet26t": _R26 | _T | _ECA | {"input_size": 256},
    "ecaresnet50d": _R50 | _D | _ECA,
    "ecaresnet50t": _R50 | _T | _ECA | {"input_size": 256},
    "ecaresnet101d": _R101 | _D | _ECA,
    "ecaresnet200d": _R200 | _D | _ECA | {"input_size": 256},
    "ecaresnet269d": _R269 | _D | _ECA | {"input_size": 320},
    "ecaresnetlight": _R50 | _ECA | {"depths": (1, 1, 11, 3), "average_shortcut": True},
    "ecaresnext26t_32x4d": _R26 | _groups(32, 4) | _T | _ECA,
    "ecaresnext50t_32x4d": _R50 | _groups(32, 4) | _T | _ECA,
    "resnest14d": _R14 | _D | _SPLIT,
    "resnest26d": _R26 | _D | _SPLIT,
    "resnest50d": _R50 | _D | _SPLIT,
    "resnest50d_1s4x24d": _R50 | _groups(4, 24) | _D | _split(1),
    "resnest50d_4s2x40d": _R50 | _groups(2, 40) | _D | _split(4),
    "resnest101e": _R101 | _E | _SPLIT | {"input_size": 256},
    "resnest200e": _R200 | _E | _SPLIT | {"input_size": 320},
    "resnest269e": _R269 | _E | _SPLIT | {"input_size": 416},
    "skresnet18": _R18 | _SK,
    "skresnet34": _R34 | _SK,
    "skresnet50": _R50 | _SK_WIDE,
    "skresnet50d": _R50 | _D | _SK_WIDE,
    "skresnext50_32x4d": _R50 | _groups(32, 4) | _SK_PAPER,
    "test_resnet": {
        "branch": (basic, basic, bottleneck, basic),
        "depths": (1, 1, 1, 1),
        "widths": (32, 48, 48, 96),
        "stem_widths": (16, 16, 32),
        "average_shortcut": True,
        "input_size": 160,
    },
}
