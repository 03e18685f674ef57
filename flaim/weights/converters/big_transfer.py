"""BiT, the ResNets of google-research/big_transfer: `.npz` files without a configuration.

The tensors' names and shapes give the depths, widths and classes. They do not tell the image size: the models are for
images of any size, and the description has that of timm's checkpoint.
"""

import re
from collections.abc import Mapping
from typing import Any

import flaim_core as core
from flaim.family import Rule, rename
from flaim.options import nearest
from flaim.registry import create
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.errors import CheckpointError
from flaim.weights.info import NORMALISATIONS, CheckpointInfo, Preprocessing

_MARKER = re.compile(r"^resnet/root_block/standardized_conv2d/kernel$")
_RULES: tuple[Rule, ...] = (
    (r"^resnet/root_block/standardized_conv2d/", "stem/conv/"),
    (r"^resnet/block(\d+)/unit(\d+)/", lambda m: f"stages/{int(m[1]) - 1}/blocks/{int(m[2]) - 1}/"),
    (r"/a/proj/standardized_conv2d/", "/downsample/conv/"),
    (r"/([abc])/group_norm/", lambda m: f"/norm{'abc'.index(m[1]) + 1}/"),
    (r"/([abc])/standardized_conv2d/", lambda m: f"/conv{'abc'.index(m[1]) + 1}/"),
    (r"^resnet/group_norm/", "norm/"),
    (r"^resnet/head/conv2d/", "head/fc/"),
    (r"/gamma$", "/scale"),
    (r"/beta$", "/bias"),
)


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether the tensors have the names of this project's models."""
    return any(map(_MARKER.search, tensors))


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The description from the names and shapes of the tensors at `where`.

    Raises:
        CheckpointError: The stages' tensors are not there.
    """
    leaves = _renamed(tensors)
    depths: dict[int, int] = {}
    for name in leaves:
        if found := re.search(r"^stages/(\d+)/blocks/(\d+)/conv3/kernel$", name):
            stage, block = map(int, found.groups())
            depths[stage] = max(depths.get(stage, 0), block + 1)
    last = [f"stages/{stage}/blocks/0/conv3/kernel" for stage in range(len(depths))]
    if not depths or any(name not in leaves for name in last):
        raise CheckpointError(f"{where} holds a ResNet without the first block of one of its stages")
    options = {
        "depths": [depths[stage] for stage in range(len(depths))],
        "widths": [leaves[name].shape[-1] for name in last],
        "stem_widths": [leaves["stem/conv/kernel"].shape[-1]],
    }
    architecture, overrides = nearest("resnetv2", "_bit$", options, (224, 224))
    mean, std = NORMALISATIONS["inception"]
    return CheckpointInfo(
        model=architecture,
        family="resnetv2",
        architecture=architecture,
        overrides=overrides,
        n_classes=leaves["head/fc/bias"].shape[-1] if "head/fc/bias" in leaves else -1,
        in_channels=leaves["stem/conv/kernel"].shape[2],
        preprocessing=Preprocessing(input_size=create(architecture).input_size, mean=mean, std=std),
    )


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by the paths of flaim's leaves, in its layout."""
    return {f"params/{name}": value for name, value in _renamed(tensors).items()}


def _renamed(tensors: Tensors) -> dict[str, Any]:
    return {rename(name, _RULES) or name: value for name, value in tensors.items()}


BIG_TRANSFER = Converter("big_transfer", recognises, describe, translate)
