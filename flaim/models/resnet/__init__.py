"""ResNet and its relatives: ResNeXt, SE-, ECA- and SK-ResNet, ResNeSt, ResNet-RS, anti-aliased and group-norm ResNets.

He et al., "Deep Residual Learning for Image Recognition" (2015); the stride sits in the 3x3 convolution ("v1.5").
He et al., "Bag of Tricks for Image Classification" (2018): the C and D stems (three 3x3 convolutions) and D's shortcut
(average pooling before the 1x1 convolution); timm's T stem has tiered widths. Xie et al., "ResNeXt" (2016); Hu et al.,
"SENet" (2017); Wang et al., "ECA-Net" (2019); Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019);
Bello et al., "Revisiting ResNets" (2021): RS. Li et al., "Selective Kernel Networks" (2019): in timm's SK-ResNets each
kernel sees half of the channels, in SK-ResNeXt all of them, as in the paper. Zhang et al., "ResNeSt: Split-Attention
Networks" (2020): in training, timm's stochastic depth drops the input of ResNeSt's projection shortcuts; ours drops
residual branches, as in all other ResNets. The reference implementation is timm's `resnet.py`, `sknet.py` and
`resnest.py`.

Keras' ResNets are the original ones: the stride sits in the first 1x1 convolution (`stride_first`), convolutions have
biases (`conv_bias`), the norms another epsilon (`norm_eps`).
"""

from flaim.family import Family, Timm
from flaim.models.resnet._blocks import (
    basic,
    bottleneck,
    selective_kernel_basic,
    selective_kernel_bottleneck,
    split_attention_bottleneck,
    squeeze_excite_rounded,
)
from flaim.models.resnet._model import convolution, resnet
from flaim.models.resnet._variants import VARIANTS
from flaim_core.layers.pooling import average_pooling, blurred_max_pooling, halve, max_pooling

FAMILY = Family(
    resnet,
    "fc",
    VARIANTS,
    choices={
        "average_pooling": average_pooling,
        "basic": basic,
        "blurred_max_pooling": blurred_max_pooling,
        "bottleneck": bottleneck,
        "convolution": convolution,
        "halve": halve,
        "max_pooling": max_pooling,
        "selective_kernel_basic": selective_kernel_basic,
        "selective_kernel_bottleneck": selective_kernel_bottleneck,
        "split_attention_bottleneck": split_attention_bottleneck,
        "squeeze_excite_rounded": squeeze_excite_rounded,
    },
    timm=Timm(("resnet", "resnest", "sknet")),
    tiny=("test_resnet", {"input_size": 32}),
)
