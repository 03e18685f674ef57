"""EfficientNet and the mobile networks it grew from: stacks of depthwise-separable, MBConv and fused MBConv blocks.

Tan and Le, "EfficientNet" (2019) and "EfficientNetV2" (2021); Howard et al., "MobileNets" (2017); Sandler et al.,
"MobileNetV2" (2018); Tan et al., "MnasNet" (2019); Wu et al., "FBNet" (2019); Stamoulis et al., "Single-Path NAS"
(2019); Tan and Le, "MixConv" (2019), MixNet; Yang et al., "CondConv" (2019); Gupta and Tan, "EfficientNet-EdgeTPU"
(2019); Han et al., "Model Rubik's Cube" (2020), TinyNet; Li et al., "Searching for Fast Model Families on Datacenter
Accelerators" (2021), EfficientNet-X; Akin et al., "Searching for Efficient Neural Architectures for On-Device ML on
Edge TPUs" (2022). The reference implementation is timm's `efficientnet.py`, whose three models with pruned channels are
left out. `fbnetc_100` has the epsilon its weights were trained with, 1e-3, which timm sets only where it loads them.

Keras' EfficientNets are the `tf_*` ones, its MobileNets are Keras' alone: `tf_mobilenetv1_*`. Its MobileNetV2s
(`mobilenetv2_130` is Keras' alone) have TensorFlow's padding and epsilon too: `padding="same"` and `norm_eps=1e-3`.
"""

from flaim.family import Family, Timm
from flaim.models.efficientnet._blocks import conditional_mbconv, space_to_depth_separable
from flaim.models.efficientnet._model import efficientnet
from flaim.models.efficientnet._variants import VARIANTS
from flaim_core.layers.stacks import Stack

FAMILY = Family(
    efficientnet,
    "classifier",
    VARIANTS,
    choices={
        "Stack": Stack,
        "conditional_mbconv": conditional_mbconv,
        "space_to_depth_separable": space_to_depth_separable,
    },
    timm=Timm(("efficientnet",)),
    tiny=("test_efficientnet", {"input_size": 32}),
)
