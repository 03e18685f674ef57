"""The published Vision Transformers: a line each."""

from functools import partial
from typing import Any

import jax

from flaim.models.vit._blocks import (
    diff_parallel_scaling_block,
    differential_schedule,
    encoder_block,
    parallel_scaling_block,
    parallel_things_block,
    res_post_block,
)
from flaim.models.vit._hybrid import conv_stem, hybrid_embed, resnet_d, standardised_resnet, standardised_stem
from flaim.models.vit._model import attention_pooling, average_pool
from flaim_core import differential_attention, gelu_tanh, glu, layer_norm, packed_glu, quick_gelu, rms_norm


def _variant(patch_size: int, input_size: int, **options) -> dict:
    return {"patch_size": patch_size, "input_size": input_size, **options}


def _size(dim: int, depth: int, num_heads: int, **options: Any) -> partial:
    """Variants of one width, depth and number of heads: a function `(patch_size, input_size, **options)`."""
    return partial(_variant, dim=dim, depth=depth, num_heads=num_heads, **options)


_tiny = _size(192, 12, 3)
_xsmall = _size(256, 10, 4)
_wee = _size(256, 14, 4, mlp_ratio=5.0)
_pwee = _size(256, 16, 4, mlp_ratio=5.0)
_little = _size(320, 14, 5, mlp_ratio=5.6)
_small = _size(384, 12, 6)
_medium = _size(512, 12, 8)
_mediumd = _size(512, 20, 8)
_betwixt = _size(640, 12, 10)
_base = _size(768, 12, 12)
_base_plus = _size(896, 12, 14)
_so150m = _size(896, 18, 14, mlp_ratio=2.572)
_so150m2 = _size(832, 21, 13, mlp_ratio=34 / 13)
_large = _size(1024, 24, 16)
_so400m = _size(1152, 27, 16, mlp_ratio=3.7362)
_huge = _size(1280, 32, 16)
_giant = _size(1408, 40, 16, mlp_ratio=48 / 11)
_giantopt = _size(1536, 40, 16)
_giant_24 = _size(1536, 40, 24)
_gigantic = _size(1664, 48, 16, mlp_ratio=64 / 13)
_aimv2_large = _size(1024, 24, 8, mlp_ratio=2.75)
_aimv2_huge = _size(1536, 24, 12, mlp_ratio=2.6667)
_aimv2_1b = _size(2048, 24, 16, mlp_ratio=2.75)
_aimv2_3b = _size(3072, 24, 24, mlp_ratio=2.6667)

_silu = jax.nn.silu
_norm_1e5 = partial(layer_norm, eps=1e-5)
_rms_norm_1e5 = partial(rms_norm, eps=1e-5)
_glu_block = partial(encoder_block, mlp=glu)
_packed_glu_block = partial(encoder_block, mlp=packed_glu)
_diff_block = partial(encoder_block, attn=differential_attention)

# Convolutional networks before the transformer, and the widths of models with ResNet-D.
_R: dict = dict(embed=partial(hybrid_embed, backbone=standardised_stem))
_R26: dict = dict(embed=partial(hybrid_embed, backbone=partial(standardised_resnet, depths=(2, 2, 2, 2))))
_R50: dict = dict(embed=partial(hybrid_embed, backbone=partial(standardised_resnet, depths=(3, 4, 6, 3))))
_R50_S16: dict = dict(embed=partial(hybrid_embed, backbone=partial(standardised_resnet, depths=(3, 4, 9))))
_R26D: dict = dict(embed=partial(hybrid_embed, backbone=partial(resnet_d, depths=(2, 2, 2, 2))))
_R50D: dict = dict(embed=partial(hybrid_embed, backbone=partial(resnet_d, depths=(3, 4, 6, 3))))
_R50D_S16: dict = dict(embed=partial(hybrid_embed, backbone=partial(resnet_d, depths=(3, 4, 6))))
_MCI: dict = dict(embed=partial(hybrid_embed, backbone=conv_stem, project=False))
_small_d = _size(768, 8, 8, mlp_ratio=3.0)

# Global average pooling of all tokens but the registers; then with the last norm before it instead of after it.
_GAP: dict = dict(class_token=False, pool=average_pool)
_NORM_GAP: dict = dict(**_GAP, fc_norm=False)
_REG_GAP: dict = dict(**_GAP, layer_scale_init=1e-5, embed_prefix=False)
_SO150M2: dict = dict(**_GAP, layer_scale_init=1e-5, qkv_bias=False)
_MAP: dict = dict(class_token=False, pool=attention_pooling)
_DIFF: dict = dict(**_REG_GAP, lambda_init=differential_schedule)
_XP: dict = dict(embed_prefix=False, block=parallel_scaling_block, pre_norm=True, norm=rms_norm, qk_norm=rms_norm)
_CLIP: dict = dict(pre_norm=True, norm=_norm_1e5)
_QUICK: dict = dict(**_CLIP, act=quick_gelu)
_BEIT3: dict = dict(pool=average_pool, norm=_norm_1e5, sub_norm=_norm_1e5)
_DINO: dict = dict(layer_scale_init=1e-5, n_classes=-1)
_TIPS: dict = dict(embed_prefix=False, n_classes=-1, layer_scale_init=1.0)
_GLU: dict = dict(block=_packed_glu_block, act=_silu, mlp_ratio=5.33334)
_RADIO: dict = dict(embed_prefix=False, n_classes=-1, final_norm=False)
_RMS: dict = dict(norm=_rms_norm_1e5, embed_norm=_rms_norm_1e5)
_AIM: dict = dict(**_NORM_GAP, **_RMS, block=_glu_block, act=_silu, qkv_bias=False, proj_bias=False, n_classes=-1)
_TEST: dict = dict(input_size=160, num_registers=1, layer_scale_init=1e-5)

VARIANTS: dict[str, dict] = {
    "vit_tiny_patch16_224": _tiny(16, 224),
    "vit_tiny_patch16_384": _tiny(16, 384),
    "vit_small_patch16_224": _small(16, 224),
    "vit_small_patch16_384": _small(16, 384),
    "vit_small_patch32_224": _small(32, 224),
    "vit_small_patch32_384": _small(32, 384),
    "vit_base_patch8_224": _base(8, 224),
    "vit_base_patch16_224": _base(16, 224),
    "vit_base_patch16_384": _base(16, 384),
    "vit_base_patch32_224": _base(32, 224),
    "vit_base_patch32_384": _base(32, 384),
    "vit_large_patch14_224": _large(14, 224),
    "vit_large_patch16_224": _large(16, 224),
    "vit_large_patch16_384": _large(16, 384),
    "vit_large_patch32_384": _large(32, 384),
    "vit_giant_patch14_224": _giant(14, 224),
    "vit_gigantic_patch14_224": _gigantic(14, 224),
    "vit_small_patch8_224": _small(8, 224, n_classes=-1),
    "vit_large_patch32_224": _large(32, 224, n_classes=-1),
    "vit_huge_patch14_224": _huge(14, 224, n_classes=-1),
    "vit_base_patch16_224_miil": _base(16, 224, qkv_bias=False, n_classes=11221),
    "vit_base_patch16_plus_240": _base_plus(16, 240, layer_scale_init=1e-5),
    "vit_base_patch32_plus_256": _base_plus(32, 256, layer_scale_init=1e-5),
    "vit_small_patch16_36x1_224": _small(16, 224, layer_scale_init=1e-5, depth=36),
    "vit_small_patch16_18x2_224": _small(16, 224, layer_scale_init=1e-5, depth=18, block=parallel_things_block),
    "vit_base_patch16_18x2_224": _base(16, 224, layer_scale_init=1e-5, depth=18, block=parallel_things_block),
    "vit_base_patch16_xp_224": _base(16, 224, qkv_bias=False, **_XP),
    "vit_large_patch14_xp_224": _large(14, 224, qkv_bias=False, **_XP),
    "vit_huge_patch14_xp_224": _huge(14, 224, qkv_bias=False, **_XP),
    "vit_base_patch16_rpn_224": _base(16, 224, layer_scale_init=1e-5, qkv_bias=False, block=res_post_block, **_GAP),
    "flexivit_small": dict(dim=384, depth=12, num_heads=6, embed_prefix=False, input_size=240),
    "flexivit_base": dict(dim=768, depth=12, num_heads=12, embed_prefix=False, input_size=240),
    "flexivit_large": dict(dim=1024, depth=24, num_heads=16, embed_prefix=False, input_size=240),
    "eva_large_patch14_196": _large(14, 196, pool=average_pool),
    "eva_large_patch14_336": _large(14, 336, pool=average_pool),
    "beit3_base_patch16_224": _base(16, 224, **_BEIT3),
    "beit3_large_patch16_224": _large(16, 224, **_BEIT3),
    "beit3_giant_patch14_224": _giant(14, 224, **_BEIT3),
    "beit3_giant_patch14_336": _giant(14, 336, **_BEIT3),
    # DeiT and DeiT III
    "deit_tiny_patch16_224": _tiny(16, 224),
    "deit_small_patch16_224": _small(16, 224),
    "deit_base_patch16_224": _base(16, 224),
    "deit_base_patch16_384": _base(16, 384),
    "deit_tiny_distilled_patch16_224": _tiny(16, 224, distilled=True),
    "deit_small_distilled_patch16_224": _small(16, 224, distilled=True),
    "deit_base_distilled_patch16_224": _base(16, 224, distilled=True),
    "deit_base_distilled_patch16_384": _base(16, 384, distilled=True),
    "deit3_small_patch16_224": _small(16, 224, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_small_patch16_384": _small(16, 384, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_medium_patch16_224": _medium(16, 224, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_huge_patch14_224": _huge(14, 224, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_base_patch16_224": _base(16, 224, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_base_patch16_384": _base(16, 384, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_large_patch16_224": _large(16, 224, embed_prefix=False, layer_scale_init=1e-6),
    "deit3_large_patch16_384": _large(16, 384, embed_prefix=False, layer_scale_init=1e-6),
    # Average pooling and registers
    "vit_base_patch16_gap_224": _base(16, 224, num_heads=16, **_NORM_GAP),
    "vit_huge_patch14_gap_224": _huge(14, 224, n_classes=-1, **_NORM_GAP),
    "vit_huge_patch16_gap_448": _huge(16, 448, n_classes=-1, **_NORM_GAP),
    "vit_giant_patch16_gap_224": _giant(16, 224, n_classes=-1, **_NORM_GAP),
    "vit_medium_patch16_gap_240": _medium(16, 240, layer_scale_init=1e-6, qkv_bias=False, n_classes=11821, **_NORM_GAP),
    "vit_medium_patch16_gap_256": _medium(16, 256, layer_scale_init=1e-6, qkv_bias=False, **_NORM_GAP),
    "vit_medium_patch16_gap_384": _medium(16, 384, layer_scale_init=1e-6, qkv_bias=False, **_NORM_GAP),
    "vit_betwixt_patch16_gap_256": _betwixt(16, 256, layer_scale_init=1e-6, qkv_bias=False, **_NORM_GAP),
    "vit_base_patch16_reg4_gap_256": _base(16, 256, num_registers=4, embed_prefix=False, **_GAP),
    "vit_wee_patch16_reg1_gap_256": _wee(16, 256, num_registers=1, **_REG_GAP),
    "vit_little_patch16_reg1_gap_256": _little(16, 256, num_registers=1, **_REG_GAP),
    "vit_little_patch16_reg4_gap_256": _little(16, 256, num_registers=4, **_REG_GAP),
    "vit_medium_patch16_reg1_gap_256": _medium(16, 256, num_registers=1, **_REG_GAP),
    "vit_medium_patch16_reg4_gap_256": _medium(16, 256, num_registers=4, **_REG_GAP),
    "vit_mediumd_patch16_reg4_gap_256": _mediumd(16, 256, num_registers=4, **_REG_GAP),
    "vit_mediumd_patch16_reg4_gap_384": _mediumd(16, 384, num_registers=4, **_REG_GAP),
    "vit_betwixt_patch16_reg1_gap_256": _betwixt(16, 256, num_registers=1, **_REG_GAP),
    "vit_betwixt_patch16_reg4_gap_256": _betwixt(16, 256, num_registers=4, **_REG_GAP),
    "vit_betwixt_patch16_reg4_gap_384": _betwixt(16, 384, num_registers=4, **_REG_GAP),
    "vit_pwee_patch16_reg1_gap_256": _pwee(16, 256, num_registers=1, block=parallel_scaling_block, **_REG_GAP),
    "vit_dpwee_patch16_reg1_gap_256": _pwee(16, 256, num_registers=1, block=diff_parallel_scaling_block, **_DIFF),
    "vit_dwee_patch16_reg1_gap_256": _wee(16, 256, num_registers=1, block=_diff_block, **_DIFF),
    "vit_dlittle_patch16_reg1_gap_256": _little(16, 256, num_registers=1, block=_diff_block, **_DIFF),
    "vit_so150m_patch16_reg4_gap_256": _so150m(16, 256, num_registers=4, **_NORM_GAP),
    "vit_so150m_patch16_reg4_gap_384": _so150m(16, 384, num_registers=4, **_NORM_GAP),
    "vit_so150m_patch16_reg4_map_256": _so150m(16, 256, num_registers=4, **_MAP),
    "vit_so150m2_patch16_reg1_gap_256": _so150m2(16, 256, num_registers=1, **_SO150M2),
    "vit_so150m2_patch16_reg1_gap_384": _so150m2(16, 384, num_registers=1, **_SO150M2),
    "vit_so150m2_patch16_reg1_gap_448": _so150m2(16, 448, num_registers=1, **_SO150M2),
    # CLIP
    "vit_base_patch32_clip_224": _base(32, 224, **_CLIP),
    "vit_base_patch32_clip_384": _base(32, 384, **_CLIP),
    "vit_base_patch32_clip_448": _base(32, 448, **_CLIP),
    "vit_base_patch16_clip_224": _base(16, 224, **_CLIP),
    "vit_base_patch16_clip_384": _base(16, 384, **_CLIP),
    "vit_large_patch14_clip_224": _large(14, 224, **_CLIP),
    "vit_large_patch14_clip_336": _large(14, 336, **_CLIP),
    "vit_huge_patch14_clip_224": _huge(14, 224, **_CLIP),
    "vit_huge_patch14_clip_336": _huge(14, 336, **_CLIP),
    "vit_xsmall_patch16_clip_224": _xsmall(16, 224, n_classes=512, **_CLIP),
    "vit_medium_patch16_clip_224": _medium(16, 224, n_classes=512, **_CLIP),
    "vit_medium_patch32_clip_224": _medium(32, 224, n_classes=512, **_CLIP),
    "vit_betwixt_patch32_clip_224": _betwixt(32, 224, n_classes=512, **_CLIP),
    "vit_base_patch32_clip_256": _base(32, 256, n_classes=512, **_CLIP),
    "vit_base_patch16_plus_clip_240": _base_plus(16, 240, n_classes=640, **_CLIP),
    "vit_huge_patch14_clip_378": _huge(14, 378, n_classes=1024, **_CLIP),
    "vit_giant_patch14_clip_224": _giant(14, 224, n_classes=1024, **_CLIP),
    "vit_gigantic_patch14_clip_224": _gigantic(14, 224, n_classes=1280, **_CLIP),
    "vit_gigantic_patch14_clip_378": _gigantic(14, 378, n_classes=1280, **_CLIP),
    "vit_base_patch32_clip_quickgelu_224": _base(32, 224, n_classes=512, **_QUICK),
    "vit_base_patch16_clip_quickgelu_224": _base(16, 224, n_classes=512, **_QUICK),
    "vit_large_patch14_clip_quickgelu_224": _large(14, 224, n_classes=768, **_QUICK),
    "vit_large_patch14_clip_quickgelu_336": _large(14, 336, n_classes=768, **_QUICK),
    "vit_huge_patch14_clip_quickgelu_224": _huge(14, 224, n_classes=1024, **_QUICK),
    "vit_huge_patch14_clip_quickgelu_378": _huge(14, 378, n_classes=1024, **_QUICK),
    "vit_gigantic_patch14_clip_quickgelu_224": _gigantic(14, 224, n_classes=1280, **_QUICK),
    # SigLIP
    "vit_base_patch16_siglip_224": _base(16, 224, n_classes=-1, **_MAP),
    "vit_base_patch16_siglip_256": _base(16, 256, n_classes=-1, **_MAP),
    "vit_base_patch16_siglip_384": _base(16, 384, n_classes=-1, **_MAP),
    "vit_base_patch16_siglip_512": _base(16, 512, n_classes=-1, **_MAP),
    "vit_large_patch16_siglip_256": _large(16, 256, n_classes=-1, **_MAP),
    "vit_large_patch16_siglip_384": _large(16, 384, n_classes=-1, **_MAP),
    "vit_base_patch32_siglip_256": _base(32, 256, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_large_patch16_siglip_512": _large(16, 512, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_so400m_patch16_siglip_256": _so400m(16, 256, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_so400m_patch16_siglip_384": _so400m(16, 384, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_so400m_patch16_siglip_512": _so400m(16, 512, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_giantopt_patch16_siglip_256": _giantopt(16, 256, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_giantopt_patch16_siglip_384": _giantopt(16, 384, act=gelu_tanh, n_classes=-1, **_MAP),
    "vit_so400m_patch14_siglip_224": _so400m(14, 224, n_classes=-1, **_MAP),
    "vit_so400m_patch14_siglip_378": _so400m(14, 378, n_classes=-1, **_MAP),
    "vit_so400m_patch14_siglip_384": _so400m(14, 384, n_classes=-1, drop_remainder=True, **_MAP),
    "vit_base_patch16_siglip_gap_224": _base(16, 224, n_classes=-1, **_NORM_GAP),
    "vit_base_patch16_siglip_gap_256": _base(16, 256, n_classes=-1, **_NORM_GAP),
    "vit_base_patch16_siglip_gap_384": _base(16, 384, n_classes=-1, **_NORM_GAP),
    "vit_base_patch16_siglip_gap_512": _base(16, 512, n_classes=-1, **_NORM_GAP),
    "vit_large_patch16_siglip_gap_256": _large(16, 256, n_classes=-1, **_NORM_GAP),
    "vit_large_patch16_siglip_gap_384": _large(16, 384, n_classes=-1, **_NORM_GAP),
    "vit_base_patch32_siglip_gap_256": _base(32, 256, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_large_patch16_siglip_gap_512": _large(16, 512, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch16_siglip_gap_256": _so400m(16, 256, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch16_siglip_gap_384": _so400m(16, 384, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch16_siglip_gap_512": _so400m(16, 512, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_giantopt_patch16_siglip_gap_256": _giantopt(16, 256, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_giantopt_patch16_siglip_gap_384": _giantopt(16, 384, act=gelu_tanh, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch14_siglip_gap_224": _so400m(14, 224, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch14_siglip_gap_378": _so400m(14, 378, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch14_siglip_gap_448": _so400m(14, 448, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch14_siglip_gap_896": _so400m(14, 896, n_classes=-1, **_NORM_GAP),
    "vit_so400m_patch14_siglip_gap_384": _so400m(14, 384, n_classes=-1, drop_remainder=True, **_NORM_GAP),
    # DINOv2, TIPS, RADIO, AIMv2, InternViT
    "vit_small_patch14_dinov2": _small(14, 518, **_DINO),
    "vit_base_patch14_dinov2": _base(14, 518, **_DINO),
    "vit_large_patch14_dinov2": _large(14, 518, **_DINO),
    "vit_small_patch14_reg4_dinov2": _small(14, 518, num_registers=4, embed_prefix=False, **_DINO),
    "vit_base_patch14_reg4_dinov2": _base(14, 518, num_registers=4, embed_prefix=False, **_DINO),
    "vit_large_patch14_reg4_dinov2": _large(14, 518, num_registers=4, embed_prefix=False, **_DINO),
    "vit_giant_patch14_dinov2": _giant_24(14, 518, **_DINO, **_GLU),
    "vit_giant_patch14_reg4_dinov2": _giant_24(14, 518, num_registers=4, embed_prefix=False, **_DINO, **_GLU),
    "vit_base_patch14_reg1_tipsv2": _base(14, 448, num_registers=1, **_TIPS),
    "vit_large_patch14_reg1_tipsv2": _large(14, 448, num_registers=1, **_TIPS),
    "vit_so400m_patch14_reg1_tipsv2": _so400m(14, 448, num_registers=1, **_TIPS),
    "vit_giant_patch14_reg1_tipsv2": _giant_24(14, 448, num_registers=1, **_TIPS, **_GLU),
    "vit_base_patch16_radio_v3": _base(16, 512, num_registers=7, layer_scale_init=1e-5, **_RADIO),
    "vit_large_patch16_radio_v3": _large(16, 512, num_registers=7, layer_scale_init=1e-5, **_RADIO),
    "vit_huge_patch16_radio_v3": _huge(16, 512, num_registers=7, **_RADIO),
    "vit_giant_patch16_radio_v3": _giant_24(16, 512, num_registers=7, **_RADIO),
    "vit_so400m_patch16_radio_v4": _so400m(16, 512, num_registers=9, **_RADIO),
    "vit_huge_patch16_radio_v4": _huge(16, 512, num_registers=9, **_RADIO),
    "aimv2_large_patch14_224": _aimv2_large(14, 224, **_AIM),
    "aimv2_large_patch14_336": _aimv2_large(14, 336, **_AIM),
    "aimv2_large_patch14_448": _aimv2_large(14, 448, **_AIM),
    "aimv2_huge_patch14_224": _aimv2_huge(14, 224, **_AIM),
    "aimv2_huge_patch14_336": _aimv2_huge(14, 336, **_AIM),
    "aimv2_huge_patch14_448": _aimv2_huge(14, 448, **_AIM),
    "aimv2_1b_patch14_224": _aimv2_1b(14, 224, **_AIM),
    "aimv2_1b_patch14_336": _aimv2_1b(14, 336, **_AIM),
    "aimv2_1b_patch14_448": _aimv2_1b(14, 448, **_AIM),
    "aimv2_3b_patch14_224": _aimv2_3b(14, 224, **_AIM),
    "aimv2_3b_patch14_336": _aimv2_3b(14, 336, **_AIM),
    "aimv2_3b_patch14_448": _aimv2_3b(14, 448, **_AIM),
    "vit_intern300m_patch14_448": _large(14, 448, n_classes=-1, layer_scale_init=0.1, final_norm=False),
    # Hybrids: ViT after a ResNet or a convolutional stem
    "vit_tiny_r_s16_p8_224": _tiny(8, 224, **_R),
    "vit_tiny_r_s16_p8_384": _tiny(8, 384, **_R),
    "vit_small_r26_s32_224": _small(1, 224, **_R26),
    "vit_small_r26_s32_384": _small(1, 384, **_R26),
    "vit_base_r26_s32_224": _base(1, 224, **_R26),
    "vit_base_r50_s16_224": _base(1, 224, n_classes=-1, **_R50_S16),
    "vit_base_r50_s16_384": _base(1, 384, **_R50_S16),
    "vit_large_r50_s32_224": _large(1, 224, **_R50),
    "vit_large_r50_s32_384": _large(1, 384, **_R50),
    "vit_small_resnet26d_224": _small_d(1, 224, **_R26D),
    "vit_small_resnet50d_s16_224": _small_d(1, 224, **_R50D_S16),
    "vit_base_resnet26d_224": _base(1, 224, **_R26D),
    "vit_base_resnet50d_224": _base(1, 224, **_R50D),
    "vit_base_mci_224": _base(1, 224, n_classes=512, embed_prefix=False, **_MCI),
    # Small ones for tests
    "test_vit": dict(dim=64, depth=6, num_heads=2, mlp_ratio=3.0, input_size=160),
    "test_vit2": dict(dim=64, depth=8, num_heads=2, mlp_ratio=3.0, **_GAP, **_TEST),
    "test_vit3": dict(dim=96, depth=9, num_heads=3, mlp_ratio=2.0, pool_prefix=True, **_MAP, **_TEST),
    "test_vit4": dict(dim=96, depth=9, num_heads=3, mlp_ratio=3.0, norm=rms_norm, **_GAP, **_TEST),
}
