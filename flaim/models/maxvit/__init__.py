"""MaxViT and its relatives: CoAtNet, CoAtNeXt, MaxxViT; convolutions first, then attention to all of a map.

Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes" (2021): stages of inverted bottlenecks,
then stages of transformer blocks that attend globally. Tu et al., "MaxViT: Multi-Axis Vision Transformer" (2022): every
block is an inverted bottleneck, attention within blocks of neighbouring tokens, attention within grids that span the
map. The reference implementation is timm's `maxxvit.py`. Its `tf` models are the paper's; its `rw` models differ in
activation, in where a bottleneck is wide and in the reduction of its squeeze-and-excitation; its `rmlp` models compute
the relative position bias by a small network; "CoAtNeXt" and "MaxxViT" have ConvNeXt blocks as convolutions.

Every kind of block takes `size`, the height and width of MaxViT's blocks and grids; those without such attention ignore
it.
"""

from flaim.family import Family, Timm
from flaim.models.maxvit._blocks import (
    average_pool,
    convnext_block,
    globally,
    in_blocks,
    in_both,
    in_grids,
    inverted_bottleneck,
    max_pool,
    maxvit_block,
    normal_init,
    parallel_block,
    transformer,
)
from flaim.models.maxvit._model import convolutional_stem, maxvit
from flaim.models.maxvit._variants import VARIANTS

FAMILY = Family(
    maxvit,
    "head/fc",
    VARIANTS,
    choices={
        "average_pool": average_pool,
        "convnext_block": convnext_block,
        "convolutional_stem": convolutional_stem,
        "globally": globally,
        "in_blocks": in_blocks,
        "in_both": in_both,
        "in_grids": in_grids,
        "inverted_bottleneck": inverted_bottleneck,
        "max_pool": max_pool,
        "maxvit_block": maxvit_block,
        "parallel_block": parallel_block,
        "transformer": transformer,
        "_NORMAL": normal_init,
    },
    timm=Timm(("maxxvit",), fixed_input_size=True),
    tiny=("maxvit_tiny_tf_224", {"input_size": 64, "depths": (1, 1), "dims": (32, 64), "stem_dims": (16, 16)}),
)
