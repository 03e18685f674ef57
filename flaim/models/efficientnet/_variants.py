"""One row a variant: its stages, the factors of width and depth, the side of the images (224 if not given), options."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax

from flaim.models.efficientnet import _stages
from flaim_core import batch_norm, evo_norm, group_norm, layer_norm, ops, relu, round_features
from flaim_core.layers.stacks import Stages, scale


def _scaled(
    stages: Stages,
    width: float = 1.0,
    depth: float | Sequence[float] = 1.0,
    input_size: int = 224,
    *,
    stem: int = 32,
    head: int | None = 1280,
    scale_stem: bool = True,
    scale_head: bool = True,
    round_width: Callable = round_features,
    round_depth: Callable = math.ceil,
    **config,
) -> dict:
    """A network whose stages are scaled in width and depth, its stem and head in width.

    Args:
        input_size: Side of the images.
        stem, head: Width of the first and last convolution; no head where it is None.
        scale_stem, scale_head: Whether they are scaled too.
        config: Further options of the model function.
    """
    return {
        "stages": scale(stages, width, depth, round_width, round_depth),
        "stem_features": round_width(stem * width) if scale_stem else stem,
        "head_features": round_width(head * width) if scale_head and head else head,
        "input_size": input_size,
        **config,
    }


def _fixed_ends(stages: Stages, width: float, depth: float, input_size: int = 224, **config) -> dict:
    """A network whose stem, head, and depths of the first and last stage are not scaled."""
    depths = (1.0, *[depth] * (len(stages) - 2), 1.0)
    return _scaled(stages, width, depths, input_size, scale_stem=False, scale_head=False, act=jax.nn.relu6, **config)


def _edgetpu(width: float, depth: float, input_size: int, **config) -> dict:
    """An EfficientNet-EdgeTPU."""
    return _scaled(_stages.efficientnet_edgetpu(width), width, depth, input_size, act=relu, **config)


def _edgetpu_v2(widths: Sequence[int], group_size: int, stem_kernel_size: int, **config) -> dict:
    """A MobileNet-EdgeTPU-V2 with a wide stem."""
    stages = _stages.mobilenet_edgetpu_v2(widths, group_size)
    return _scaled(stages, stem=64, stem_kernel_size=stem_kernel_size, act=relu, **config)


_b = partial(_scaled, _stages.EFFICIENTNET_B0)
_lite = partial(_fixed_ends, _stages.LITE0)
_mixnet = partial(_scaled, head=1536, scale_head=False, round_depth=round, act=relu)
_mnasnet = partial(_scaled, scale_head=False, act=relu)
_mobilenet = partial(_scaled, scale_head=False, act=jax.nn.relu6)
_test = partial(_scaled, _stages.TEST, input_size=160, stem=24, head=256)
_tinynet = partial(_b, scale_stem=False, scale_head=False, round_depth=round)

_EPS_1E_3 = partial(batch_norm, eps=1e-3)
_TF: dict = {"padding": "same", "norm": _EPS_1E_3}  # of networks converted from TensorFlow
# timm rounds these widths to the nearest multiple of 8, even if they lose more than a tenth.
_v2_base = partial(_scaled, _stages.EFFICIENTNET_V2_BASE, round_width=partial(round_features, at_least=0.0))
_GROUP_NORM_8, _GROUP_NORM_16 = partial(group_norm, group_size=8), partial(group_norm, group_size=16)
_multiples_of_16 = partial(round_features, multiple=16)

VARIANTS = {
    "mnasnet_050": _mnasnet(_stages.MNASNET_B1, 0.5),
    "mnasnet_075": _mnasnet(_stages.MNASNET_B1, 0.75),
    "mnasnet_100": _mnasnet(_stages.MNASNET_B1),
    "mnasnet_140": _mnasnet(_stages.MNASNET_B1, 1.4),
    "semnasnet_050": _mnasnet(_stages.MNASNET_A1, 0.5),
    "semnasnet_075": _mnasnet(_stages.MNASNET_A1, 0.75),
    "semnasnet_100": _mnasnet(_stages.MNASNET_A1),
    "semnasnet_140": _mnasnet(_stages.MNASNET_A1, 1.4),
    "mnasnet_small": _mnasnet(_stages.MNASNET_SMALL, stem=8),
    "mobilenetv1_100": _mobilenet(_stages.MOBILENET_V1, head=None),
    "mobilenetv1_100h": _mobilenet(_stages.MOBILENET_V1, head=1024),
    "mobilenetv1_125": _mobilenet(_stages.MOBILENET_V1, 1.25, head=None),
    "tf_mobilenetv1_025": _mobilenet(_stages.TF_MOBILENET_V1, 0.25, head=None, **_TF),
    "tf_mobilenetv1_050": _mobilenet(_stages.TF_MOBILENET_V1, 0.5, head=None, **_TF),
    "tf_mobilenetv1_075": _mobilenet(_stages.TF_MOBILENET_V1, 0.75, head=None, **_TF),
    "tf_mobilenetv1_100": _mobilenet(_stages.TF_MOBILENET_V1, head=None, **_TF),
    "mobilenetv2_035": _mobilenet(_stages.MOBILENET_V2, 0.35),
    "mobilenetv2_050": _mobilenet(_stages.MOBILENET_V2, 0.5),
    "mobilenetv2_075": _mobilenet(_stages.MOBILENET_V2, 0.75),
    "mobilenetv2_100": _mobilenet(_stages.MOBILENET_V2),
    "mobilenetv2_110d": _fixed_ends(_stages.MOBILENET_V2, 1.1, 1.2),
    "mobilenetv2_120d": _fixed_ends(_stages.MOBILENET_V2, 1.2, 1.4),
    "mobilenetv2_130": _mobilenet(_stages.MOBILENET_V2, 1.3, head=1664),
    "mobilenetv2_140": _mobilenet(_stages.MOBILENET_V2, 1.4, head=1792),
    "fbnetc_100": _scaled(_stages.FBNET_C, stem=16, head=1984, act=relu, norm=_EPS_1E_3),
    "spnasnet_100": _mnasnet(_stages.SPNASNET),
    "efficientnet_b0": _b(1.0, 1.0, 224),
    "efficientnet_b1": _b(1.0, 1.1, 240),
    "efficientnet_b2": _b(1.1, 1.2, 256),
    "efficientnet_b3": _b(1.2, 1.4, 288),
    "efficientnet_b4": _b(1.4, 1.8, 320),
    "efficientnet_b5": _b(1.6, 2.2, 448),
    "efficientnet_b6": _b(1.8, 2.6, 528),
    "efficientnet_b7": _b(2.0, 3.1, 600),
    "efficientnet_b8": _b(2.2, 3.6, 672),
    "efficientnet_l2": _b(4.3, 5.3, 800),
    "efficientnet_b0_gn": _b(1.0, 1.0, 224, norm=_GROUP_NORM_8),
    "efficientnet_b0_g8_gn": _scaled(_stages.B0_GROUPS_OF_8, norm=_GROUP_NORM_8),
    "efficientnet_b0_g16_evos": _scaled(
        _stages.B0_GROUPS_OF_16, round_width=_multiples_of_16
    ),  # with batch norm, as in timm
    "efficientnet_b3_gn": _b(1.2, 1.4, 288, round_width=_multiples_of_16, norm=_GROUP_NORM_16),
    "efficientnet_b3_g8_gn": _scaled(
        _stages.B0_GROUPS_OF_8, 1.2, 1.4, 288, round_width=_multiples_of_16, norm=_GROUP_NORM_16
    ),
    "efficientnet_blur_b0": _b(1.0, 1.0, 224, anti_alias=partial(ops.blur_pool, border="constant")),
    "efficientnet_es": _edgetpu(1.0, 1.0, 224),
    "efficientnet_em": _edgetpu(1.0, 1.1, 240),
    "efficientnet_el": _edgetpu(1.2, 1.4, 300),
    "efficientnet_cc_b0_4e": _scaled(_stages.B0_4_EXPERTS),
    "efficientnet_cc_b0_8e": _scaled(_stages.B0_8_EXPERTS),
    "efficientnet_cc_b1_8e": _scaled(_stages.B0_8_EXPERTS, 1.0, 1.1, 240),
    "efficientnet_lite0": _lite(1.0, 1.0, 224),
    "efficientnet_lite1": _lite(1.0, 1.1, 240),
    "efficientnet_lite2": _lite(1.1, 1.2, 260),
    "efficientnet_lite3": _lite(1.2, 1.4, 300),
    "efficientnet_lite4": _lite(1.4, 1.8, 380),
    "mixnet_s": _mixnet(_stages.MIXNET_S, stem=16),
    "mixnet_m": _mixnet(_stages.MIXNET_M, stem=24),
    "mixnet_l": _mixnet(_stages.MIXNET_M, 1.3, stem=24),
    "efficientnet_es_pruned": _edgetpu(1.0, 1.0, 224),
    "efficientnet_el_pruned": _edgetpu(1.2, 1.4, 300),
    "efficientnet_x_b3": _scaled(_stages.efficientnet_x(1.2, 1.4, 6), input_size=288, stem=40, head=1536),
    "efficientnet_x_b5": _scaled(_stages.efficientnet_x(1.6, 2.2, 6), input_size=448, stem=48, head=2048),
    "efficientnet_h_b5": _scaled(_stages.efficientnet_x(1.92, 2.2, 4), input_size=448, stem=64, head=2456),
    "efficientnetv2_rw_t": _scaled(_stages.EFFICIENTNET_V2_S, 0.8, 0.9, stem=24),
    "gc_efficientnetv2_rw_t": _scaled(_stages.EFFICIENTNET_V2_GLOBAL_CONTEXT, 0.8, 0.9, stem=24),
    "efficientnetv2_rw_s": _scaled(_stages.EFFICIENTNET_V2_RW, 1.0, 1.0, 288, stem=24, head=1792),
    "efficientnetv2_rw_m": _scaled(
        _stages.EFFICIENTNET_V2_RW, 1.2, (1.2, 1.2, 1.2, 1.2, 1.6, 1.6), 320, stem=24, head=1792
    ),
    "efficientnetv2_s": _scaled(_stages.EFFICIENTNET_V2_S, input_size=288, stem=24),
    "efficientnetv2_m": _scaled(_stages.EFFICIENTNET_V2_M, input_size=320, stem=24),
    "efficientnetv2_l": _scaled(_stages.EFFICIENTNET_V2_L, input_size=384),
    "efficientnetv2_xl": _scaled(_stages.EFFICIENTNET_V2_XL, input_size=384),
    "tf_efficientnet_b0": _b(1.0, 1.0, 224, **_TF),
    "tf_efficientnet_b1": _b(1.0, 1.1, 240, **_TF),
    "tf_efficientnet_b2": _b(1.1, 1.2, 260, **_TF),
    "tf_efficientnet_b3": _b(1.2, 1.4, 300, **_TF),
    "tf_efficientnet_b4": _b(1.4, 1.8, 380, **_TF),
    "tf_efficientnet_b5": _b(1.6, 2.2, 456, **_TF),
    "tf_efficientnet_b6": _b(1.8, 2.6, 528, **_TF),
    "tf_efficientnet_b7": _b(2.0, 3.1, 600, **_TF),
    "tf_efficientnet_b8": _b(2.2, 3.6, 672, **_TF),
    "tf_efficientnet_l2": _b(4.3, 5.3, 475, **_TF),
    "tf_efficientnet_es": _edgetpu(1.0, 1.0, 224, **_TF),
    "tf_efficientnet_em": _edgetpu(1.0, 1.1, 240, **_TF),
    "tf_efficientnet_el": _edgetpu(1.2, 1.4, 300, **_TF),
    "tf_efficientnet_cc_b0_4e": _scaled(_stages.B0_4_EXPERTS, **_TF),
    "tf_efficientnet_cc_b0_8e": _scaled(_stages.B0_8_EXPERTS, **_TF),
    "tf_efficientnet_cc_b1_8e": _scaled(_stages.B0_8_EXPERTS, 1.0, 1.1, 240, **_TF),
    "tf_efficientnet_lite0": _lite(1.0, 1.0, 224, **_TF),
    "tf_efficientnet_lite1": _lite(1.0, 1.1, 240, **_TF),
    "tf_efficientnet_lite2": _lite(1.1, 1.2, 260, **_TF),
    "tf_efficientnet_lite3": _lite(1.2, 1.4, 300, **_TF),
    "tf_efficientnet_lite4": _lite(1.4, 1.8, 380, **_TF),
    "tf_mixnet_s": _mixnet(_stages.MIXNET_S, stem=16, **_TF),
    "tf_mixnet_m": _mixnet(_stages.MIXNET_M, stem=24, **_TF),
    "tf_mixnet_l": _mixnet(_stages.MIXNET_M, 1.3, stem=24, **_TF),
    "tf_efficientnetv2_b0": _v2_base(1.0, 1.0, 192, **_TF),
    "tf_efficientnetv2_b1": _v2_base(1.0, 1.1, 192, **_TF),
    "tf_efficientnetv2_b2": _v2_base(1.1, 1.2, 208, **_TF),
    "tf_efficientnetv2_b3": _v2_base(1.2, 1.4, 240, **_TF),
    "tf_efficientnetv2_s": _scaled(_stages.EFFICIENTNET_V2_S, input_size=300, stem=24, **_TF),
    "tf_efficientnetv2_m": _scaled(_stages.EFFICIENTNET_V2_M, input_size=384, stem=24, **_TF),
    "tf_efficientnetv2_l": _scaled(_stages.EFFICIENTNET_V2_L, input_size=384, **_TF),
    "tf_efficientnetv2_xl": _scaled(_stages.EFFICIENTNET_V2_XL, input_size=384, **_TF),
    "mixnet_xl": _mixnet(_stages.MIXNET_M, 1.6, 1.2, stem=24),
    "mixnet_xxl": _mixnet(_stages.MIXNET_M, 2.4, 1.3, stem=24),
    "tinynet_a": _tinynet(1.0, 1.2, 192),
    "tinynet_b": _tinynet(0.75, 1.1, 188),
    "tinynet_c": _tinynet(0.54, 0.85, 184),
    "tinynet_d": _tinynet(0.54, 0.695, 152),
    "tinynet_e": _tinynet(0.51, 0.6, 106),
    "mobilenet_edgetpu_100": _scaled(_stages.MOBILENET_EDGETPU, act=relu),
    "mobilenet_edgetpu_v2_xs": _scaled(_stages.mobilenet_edgetpu_v2((16, 32, 48, 96, 144, 160, 192), 64), act=relu),
    "mobilenet_edgetpu_v2_s": _edgetpu_v2((24, 48, 64, 128, 160, 192, 256), 64, 5),
    "mobilenet_edgetpu_v2_m": _edgetpu_v2((32, 64, 80, 160, 192, 240, 320), 64, 5, head=1344),
    "mobilenet_edgetpu_v2_l": _edgetpu_v2((32, 64, 96, 192, 240, 256, 384), 128, 7, head=1408),
    "test_efficientnet": _test(),
    "test_efficientnet_gn": _test(norm=_GROUP_NORM_8),
    "test_efficientnet_ln": _test(norm=partial(layer_norm, eps=1e-5)),
    "test_efficientnet_evos": _test(norm=partial(evo_norm, nonlinear=False), norm_act=evo_norm),
}
