"""Vision Transformers: ViT, DeiT and DeiT III, CLIP, SigLIP, DINO, EVA, BEiT-3, AIMv2, RADIO, TIPS, InternViT, hybrids.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021). Touvron et al., "Training Data-Efficient Image Transformers"
(2021): the distillation token; "DeiT III" (2022); "Three Things Everyone Should Know about Vision Transformers" (2022):
parallel branches. Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters" (2023): attention and MLP
side by side. Zhai et al., "Scaling Vision Transformers" (2022): attention pooling. Darcet et al., "Vision Transformers
Need Registers" (2023). Ye et al., "Differential Transformer" (2024). Radford et al., "CLIP" (2021); Zhai et al.,
"SigLIP" (2023); Oquab et al., "DINOv2" (2023); Fini et al., "AIMv2" (2024); Wang et al., "BEiT-3" (2022). The reference
implementation is timm's `vision_transformer.py`, `vision_transformer_hybrid.py` and `deit.py`. We leave out dropped
patches and attention dropout.
"""

from flaim.family import Family
from flaim.models.vit._blocks import (
    diff_parallel_scaling_block,
    differential_schedule,
    encoder_block,
    parallel_scaling_block,
    parallel_things_block,
    res_post_block,
)
from flaim.models.vit._checkpoints import OLDER_NAMES, TIMM
from flaim.models.vit._hybrid import conv_stem, hybrid_embed, resnet_d, standardised_resnet, standardised_stem
from flaim.models.vit._model import attention_pooling, average_pool, class_and_average_pool, class_token_pool, vit
from flaim.models.vit._variants import VARIANTS

FAMILY = Family(
    vit,
    "head",
    VARIANTS,
    choices={
        "average_pool": average_pool,
        "class_and_average_pool": class_and_average_pool,
        "class_token_pool": class_token_pool,
        "conv_stem": conv_stem,
        "diff_parallel_scaling_block": diff_parallel_scaling_block,
        "differential_schedule": differential_schedule,
        "encoder_block": encoder_block,
        "hybrid_embed": hybrid_embed,
        "map_pool": attention_pooling,
        "parallel_scaling_block": parallel_scaling_block,
        "parallel_things_block": parallel_things_block,
        "res_post_block": res_post_block,
        "resnet_d": resnet_d,
        "standardised_resnet": standardised_resnet,
        "standardised_stem": standardised_stem,
    },
    timm=TIMM,
    older_names=OLDER_NAMES,
    tiny=("test_vit", {"input_size": 32}),
)
