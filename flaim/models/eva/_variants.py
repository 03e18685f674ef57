"""The published models: a line each."""

from functools import partial
from typing import Any

from flaim.models.eva._blocks import (
    eva_block,
    merged_projection,
    packed_swiglu,
    post_norm_block,
    rotary_attention,
    split_projection,
)
from flaim.models.eva._model import attention_pooling, class_token_pool
from flaim_core import glu, layer_norm, ops, rms_norm


def _variant(patch_size: int, input_size: int | tuple[int, int], **options: Any) -> dict:
    return {"patch_size": patch_size, "input_size": input_size, **options}


def _size(dim: int, depth: int, num_heads: int, **options: Any) -> partial:
    """Variants of one width, depth and number of heads: a function `(patch_size, input_size, **options)`."""
    return partial(_variant, dim=dim, depth=depth, num_heads=num_heads, **options)


def _kv_heads(depth: int, num_heads: int) -> tuple[int, ...]:
    """Sapiens2's heads of keys and values: half as many, but for the first eight and the last eight blocks."""
    return (num_heads,) * 8 + (num_heads // 2,) * (depth - 16) + (num_heads,) * 8


_tiny = _size(192, 12, 3)
_small = _size(384, 12, 6)
_medium = _size(512, 12, 8)
_mediumd = _size(512, 20, 8)
_betwixt = _size(640, 12, 10)
_base = _size(768, 12, 12)
_large = _size(1024, 24, 16)
_huge_plus = _size(1280, 32, 20)
_giant = _size(1408, 40, 16, mlp_ratio=6144 / 1408)
_giant_24 = _size(1536, 40, 24)
_gigantic = _size(1536, 50, 16, mlp_ratio=8960 / 1536)
_enormous = _size(1792, 64, 16, mlp_ratio=15360 / 1792)
_7b = _size(4096, 40, 32)

_norm_1e5 = partial(layer_norm, eps=1e-5)
_merged_qkv = partial(rotary_attention, project=merged_projection)
_split_qkv = partial(rotary_attention, project=split_projection)
_normed_qkv = partial(_split_qkv, norm=layer_norm)
_half_turned = partial(rotary_attention, interleaved=False)

# Rotation as on a map of 16x16 patches, whatever the size; then on maps of other sizes, columns first.
_rope_16 = partial(ops.axial_angles, reference=(16, 16))
_rope_100 = partial(ops.axial_angles, temperature=100.0, columns_first=True)


def _rope(side: int, offset: float) -> partial:
    return partial(ops.axial_angles, reference=(side, side), offset=offset, columns_first=True)


_EVA02: dict = dict(rope=_rope_16, mlp_ratio=8 / 3, mlp=packed_swiglu)
_EVA02_SPLIT: dict = dict(rope=_rope_16, mlp_ratio=8 / 3, mlp=partial(glu, norm=layer_norm), attn=_split_qkv)
_EVA02_CLIP: dict = {**_EVA02_SPLIT, "attn": _normed_qkv, "pool": class_token_pool}
_SBB: dict = dict(class_token=False, absolute_positions=False, rope=_rope_16, layer_scale_init=1e-5)
_NAVER: dict = dict(attn=_merged_qkv, layer_scale_init=1e-5, pool=class_token_pool)
_AXIAL: dict = dict(**_NAVER, rope=_rope_100, absolute_positions=False)
_AXIAL_APE: dict = dict(**_NAVER, rope=_rope_100, embed_prefix=False)
_MIXED: dict = dict(**_NAVER, rope=ops.mixed_angles, absolute_positions=False)
_MIXED_APE: dict = dict(**_NAVER, rope=ops.mixed_angles, embed_prefix=False)

# Perception Encoders number rows and columns from 1 where there is a class token, from 0 where there is none.
_PE: dict = dict(attn=_merged_qkv, norm=_norm_1e5, pre_norm=True)
_CORE: dict = dict(**_PE, pool=attention_pooling)
_LANG: dict = dict(**_PE, final_norm=False, layer_scale_init=0.1, n_classes=-1)
_SPATIAL: dict = dict(**_PE, final_norm=False, n_classes=-1)

_CENTRED: dict = dict(rope=ops.centred_angles, absolute_positions=False, n_classes=-1)
_DINO: dict = dict(**_CENTRED, attn=_half_turned, norm=_norm_1e5, num_registers=4, layer_scale_init=1e-5, fc_norm=False)
_DINO_NO_BIAS: dict = dict(**_DINO, qkv_bias=False)
_LINGBOT: dict = dict(**_DINO, pool=class_token_pool)
_SAPIENS2: dict = dict(
    **_CENTRED,
    attn=partial(_split_qkv, project=partial(split_projection, key_bias=True), interleaved=False, qk_norm=rms_norm),
    mlp=packed_swiglu,
    block=partial(eva_block, scale_mlp=False),
    norm=rms_norm,
    num_registers=8,
    layer_scale_init=1.0,
    pool=class_token_pool,
)

VARIANTS: dict[str, dict] = {
    # EVA and EVA-02
    "eva_giant_patch14_224": _giant(14, 224),
    "eva_giant_patch14_336": _giant(14, 336),
    "eva_giant_patch14_560": _giant(14, 560),
    "eva_giant_patch14_clip_224": _giant(14, 224, pool=class_token_pool, n_classes=1024),
    "eva02_tiny_patch14_224": _tiny(14, 224, n_classes=-1, **_EVA02),
    "eva02_tiny_patch14_336": _tiny(14, 336, **_EVA02),
    "eva02_small_patch14_224": _small(14, 224, n_classes=-1, **_EVA02),
    "eva02_small_patch14_336": _small(14, 336, **_EVA02),
    "eva02_base_patch14_224": _base(14, 224, n_classes=-1, **_EVA02_SPLIT),
    "eva02_base_patch14_448": _base(14, 448, **_EVA02_SPLIT),
    "eva02_large_patch14_224": _large(14, 224, n_classes=-1, **_EVA02_SPLIT),
    "eva02_large_patch14_448": _large(14, 448, **_EVA02_SPLIT),
    "eva02_base_patch16_clip_224": _base(16, 224, n_classes=512, **_EVA02_CLIP),
    "eva02_large_patch14_clip_224": _large(14, 224, n_classes=768, **_EVA02_CLIP),
    "eva02_large_patch14_clip_336": _large(14, 336, n_classes=768, **_EVA02_CLIP),
    "eva02_enormous_patch14_clip_224": _enormous(14, 224, block=post_norm_block, pool=class_token_pool, n_classes=1024),
    # Average pooling and registers
    "vit_medium_patch16_rope_reg1_gap_256": _medium(16, 256, num_registers=1, **_SBB),
    "vit_mediumd_patch16_rope_reg1_gap_256": _mediumd(16, 256, num_registers=1, qkv_bias=False, **_SBB),
    "vit_betwixt_patch16_rope_reg4_gap_256": _betwixt(16, 256, num_registers=4, **_SBB),
    "vit_base_patch16_rope_reg1_gap_256": _base(16, 256, num_registers=1, **_SBB),
    # Perception Encoders
    "vit_pe_core_tiny_patch16_384": _tiny(16, 384, rope=_rope(24, 1.0), n_classes=512, **_CORE),
    "vit_pe_core_small_patch16_384": _small(16, 384, rope=_rope(24, 1.0), n_classes=512, **_CORE),
    "vit_pe_core_base_patch16_224": _base(16, 224, rope=_rope(14, 1.0), n_classes=1024, **_CORE),
    "vit_pe_core_large_patch14_336": _large(14, 336, rope=_rope(24, 1.0), n_classes=1024, **_CORE),
    "vit_pe_core_gigantic_patch14_448": _gigantic(
        14, 448, rope=_rope(32, 0.0), class_token=False, n_classes=1280, **_CORE
    ),
    "vit_pe_lang_large_patch14_448": _large(14, 448, rope=_rope(32, 1.0), depth=23, **_LANG),
    "vit_pe_lang_gigantic_patch14_448": _gigantic(14, 448, rope=_rope(32, 0.0), depth=47, class_token=False, **_LANG),
    "vit_pe_spatial_tiny_patch16_512": _tiny(16, 512, rope=_rope(32, 1.0), **_SPATIAL),
    "vit_pe_spatial_small_patch16_512": _small(16, 512, rope=_rope(32, 1.0), **_SPATIAL),
    "vit_pe_spatial_base_patch16_512": _base(16, 512, rope=_rope(32, 1.0), **_SPATIAL),
    "vit_pe_spatial_large_patch14_448": _large(14, 448, rope=_rope(32, 1.0), **_SPATIAL),
    "vit_pe_spatial_gigantic_patch14_448": _gigantic(
        14, 448, rope=_rope(32, 0.0), class_token=False, layer_scale_init=0.1, **_SPATIAL
    ),
    # RoPE-ViT: axial and mixed frequencies, without and with absolute positions
    "vit_small_patch16_rope_224": _small(16, 224, **_AXIAL),
    "vit_base_patch16_rope_224": _base(16, 224, **_AXIAL),
    "vit_large_patch16_rope_224": _large(16, 224, **_AXIAL),
    "vit_small_patch16_rope_ape_224": _small(16, 224, **_AXIAL_APE),
    "vit_base_patch16_rope_ape_224": _base(16, 224, **_AXIAL_APE),
    "vit_large_patch16_rope_ape_224": _large(16, 224, **_AXIAL_APE),
    "vit_small_patch16_rope_mixed_224": _small(16, 224, **_MIXED),
    "vit_base_patch16_rope_mixed_224": _base(16, 224, **_MIXED),
    "vit_large_patch16_rope_mixed_224": _large(16, 224, **_MIXED),
    "vit_small_patch16_rope_mixed_ape_224": _small(16, 224, **_MIXED_APE),
    "vit_base_patch16_rope_mixed_ape_224": _base(16, 224, **_MIXED_APE),
    "vit_large_patch16_rope_mixed_ape_224": _large(16, 224, **_MIXED_APE),
    # DINOv3 and EUPE
    "vit_tiny_patch16_dinov3_qkvb": _tiny(16, 256, **_DINO),
    "vit_small_patch16_dinov3": _small(16, 256, **_DINO_NO_BIAS),
    "vit_small_patch16_dinov3_qkvb": _small(16, 256, **_DINO),
    "vit_small_plus_patch16_dinov3": _small(16, 256, mlp=glu, **_DINO_NO_BIAS),
    "vit_small_plus_patch16_dinov3_qkvb": _small(16, 256, mlp=glu, **_DINO),
    "vit_base_patch16_dinov3": _base(16, 256, **_DINO_NO_BIAS),
    "vit_base_patch16_dinov3_qkvb": _base(16, 256, **_DINO),
    "vit_large_patch16_dinov3": _large(16, 256, **_DINO_NO_BIAS),
    "vit_large_patch16_dinov3_qkvb": _large(16, 256, **_DINO),
    "vit_huge_plus_patch16_dinov3": _huge_plus(16, 256, mlp=glu, **_DINO_NO_BIAS),
    "vit_huge_plus_patch16_dinov3_qkvb": _huge_plus(16, 256, mlp=glu, **_DINO),
    "vit_7b_patch16_dinov3": _7b(16, 256, mlp=glu, mlp_ratio=2.0, **_DINO_NO_BIAS),
    # LingBot-Vision
    "vit_small_patch16_lingbot": _small(16, 512, **_LINGBOT),
    "vit_base_patch16_lingbot": _base(16, 512, **_LINGBOT),
    "vit_large_patch16_lingbot": _large(16, 512, **_LINGBOT),
    "vit_giant_patch16_lingbot": _giant_24(16, 512, mlp=glu, mlp_ratio=8 / 3, qkv_bias=False, **_LINGBOT),
    # Sapiens2
    "vit_base_patch16_sapiens2": _base(16, (1024, 768), **_SAPIENS2),
    "vit_large_patch16_sapiens2": _large(16, (1024, 768), num_kv_heads=_kv_heads(24, 16), **_SAPIENS2),
    "vit_huge_patch16_sapiens2": _size(1280, 32, 16)(16, (1024, 768), num_kv_heads=_kv_heads(32, 16), **_SAPIENS2),
    "vit_giant_patch16_sapiens2": _giant_24(16, (1024, 768), num_kv_heads=_kv_heads(40, 24), **_SAPIENS2),
    "vit_5b_patch16_sapiens2": _size(2432, 56, 32)(16, (1024, 768), num_kv_heads=_kv_heads(56, 32), **_SAPIENS2),
}
