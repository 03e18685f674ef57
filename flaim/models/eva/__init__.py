"""EVA, EVA-02, DINOv3, Perception Encoders, RoPE-ViT, Sapiens2: Vision Transformers with rotary position embedding.

Fang et al., "EVA" (2022) and "EVA-02" (2023): gated MLPs, norms within the branches. Sun et al., "EVA-CLIP" (2023).
Heo et al., "Rotary Position Embedding for Vision Transformer" (2024): axial and learned frequencies. Bolya et al.,
"Perception Encoder" (2025). Siméoni et al., "DINOv3" (2025). Fu et al., "Vision Pretraining for Dense Spatial
Perception" (2026): LingBot-Vision. Khirodkar et al., "Sapiens2" (2026): fewer heads of keys and values. The reference
implementation is timm's `eva.py`. We leave out dropped patches, attention dropout, and random shifts and scales of the
coordinates in training.
"""

from flaim.family import Family
from flaim.models.eva._blocks import (
    eva_block,
    keyless_bias_projection,
    merged_projection,
    packed_swiglu,
    post_norm_block,
    rotary_attention,
    split_projection,
)
from flaim.models.eva._checkpoints import OLDER_NAMES, TIMM
from flaim.models.eva._model import attention_pooling, average_pool, class_token_pool, eva
from flaim.models.eva._variants import VARIANTS

FAMILY = Family(
    eva,
    "head",
    VARIANTS,
    choices={
        "average_pool": average_pool,
        "class_token_pool": class_token_pool,
        "eva_block": eva_block,
        "keyless_bias_projection": keyless_bias_projection,
        "map_pool": attention_pooling,
        "merged_projection": merged_projection,
        "packed_swiglu": packed_swiglu,
        "post_norm_block": post_norm_block,
        "rotary_attention": rotary_attention,
        "split_projection": split_projection,
    },
    timm=TIMM,
    older_names=OLDER_NAMES,
    tiny=("vit_small_patch16_rope_mixed_224", {"input_size": 32, "dim": 16, "depth": 2, "num_heads": 2}),
)
