"""The original flaim's checkpoints, with Linen's automatic names of modules: the class and a counter.

The files have no configuration. A published file has the name of its repository, which identifies the model. A file
with another name, such as a fine-tuned one, is taken to be the published model with the same shapes.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import flaim_core as core
from flaim import registry
from flaim.family import Rule, rename
from flaim.options import options_from
from flaim.weights import catalogue
from flaim.weights.converters._converter import Converter, Documents, Tensors
from flaim.weights.errors import CheckpointError
from flaim.weights.info import CheckpointInfo

Rules = tuple[Rule, ...]

_MARKER = re.compile(r"^params/(?!MAPHead)\w*(Stage|Stem|Block|Head|Embed|Token|ConvBNAct)_\d+/")

# Other collections in the files; flaim's models compute these values.
_COMPUTED = re.compile(r"^(rel_pos_ind|mask|k_bias_)/")


def _next(pattern: str) -> Callable[[re.Match], str]:
    """A replacement from `pattern` with each number increased by one, because timm counts from one."""
    return lambda match: pattern.format(*(int(text) + 1 if text.isdigit() else text for text in match.groups()))


_MLP: Rules = (
    (r"/TransformerMLP_0/MLP_0/Dense_(\d)/", _next("/mlp/fc{}/")),
    (r"/SE_0/MLP_0/Dense_(\d)/", _next("/se/fc{}/")),
)
_METAFORMER: Rules = (
    (r"/(?:WindowMHSA_0/|PartitionMHSA_0/)?MHSA_0/", "/attn/"),
    (r"/attn/QKV_0/Dense_0/", "/attn/qkv/"),
    (r"/attn/ProjOut_0/Dense_0/", "/attn/proj/"),
    (r"/attn/RelPosEmbed_0/Embed_0/embedding$", "/attn/relative_position_bias_table"),
    (r"/attn/MaxViTRelPosEmbed_0/rel_pos_table$", "/attn/rel_pos/relative_position_bias_table"),
    (r"/TransformerMLP_0/LayerNorm_0/", "/norm2/"),
    (r"/TransformerMLP_0/LayerScale_0/lambda$", "/ls2/gamma"),
    (r"/LayerScale_0/lambda$", "/ls1/gamma"),
    *_MLP,
)


@dataclass(frozen=True)
class _Table:
    """The names of a family.

    Attributes:
        family: flaim's name of it.
        marker: A pattern that matches a name in each of its models.
        rules: From the original paths, without their collections, to flaim's.
        options: `(option, test, rules)`: further rules for models whose value of the option passes the test.
    """

    family: str
    marker: str
    rules: Rules
    options: tuple[tuple[str, Callable[[Any], bool], Rules], ...] = ()


# The original's own `Conv` has `nn.Conv` as its only child.
_CONV: Rules = ((r"(^|/)Conv_(\d)/Conv_0/", r"\1Conv_\2/"),)

TABLES = (
    _Table(
        "vit",
        r"^(?:ViTHead_0|ClassToken_0)/",
        (
            (r"^PatchEmbed_0/Conv_0/", "patch_embed/proj/"),
            (r"^ClassToken_0/class_token$", "cls_token"),
            (r"^AbsPosEmbed_0/", ""),
            (r"^LayerNorm_0/", "norm_pre/"),
            (r"^MetaFormerBlock_(\d+)/", r"blocks/\1/"),
            *_METAFORMER,
            (r"^(blocks/\d+)/LayerNorm_0/", r"\1/norm1/"),
            (r"^ViTHead_0/LayerNorm_0/", "norm/"),
            (r"^ViTHead_0/Dense_0/", "head/"),
        ),
        (("pool", lambda pool: pool.__name__ == "average_pool", ((r"^norm/", "fc_norm/"),)),),
    ),
    _Table(
        "convnext",
        r"^ConvNeXtStage_0/",
        (
            (r"^ConvNeXtStage_(\d)/", r"stages/\1/"),
            (r"^(stages/\d)/PatchEmbed_0/LayerNorm_0/", r"\1/downsample/0/"),
            (r"^(stages/\d)/PatchEmbed_0/Conv_0/", r"\1/downsample/1/"),
            (r"^PatchEmbed_0/Conv_0/", "stem/0/"),
            (r"^PatchEmbed_0/LayerNorm_0/", "stem/1/"),
            (r"/ConvNeXtBlock_(\d+)/", r"/blocks/\1/"),
            (r"/Conv_0/", "/conv_dw/"),
            (r"/TransformerMLP_0/LayerNorm_0/", "/norm/"),
            (r"/TransformerMLP_0/LayerScale_0/lambda$", "/gamma"),
            *_MLP,
            (r"/GRN_0/gamma$", "/mlp/grn/scale"),
            (r"/GRN_0/beta$", "/mlp/grn/bias"),
            (r"^Head_0/LayerNorm_0/", "head/norm/"),
        ),
        (
            ("head_hidden", lambda width: width is None, ((r"^Head_0/Dense_0/", "head/fc/"),)),
            (
                "head_hidden",
                lambda width: width is not None,
                ((r"^Head_0/Dense_0/", "head/pre_logits/fc/"), (r"^Head_0/Dense_1/", "head/fc/")),
            ),
        ),
    ),
    _Table(
        "swin",
        r"^SwinStage_0/",
        (
            (r"^PatchEmbed_0/Conv_0/", "patch_embed/proj/"),
            (r"^PatchEmbed_0/LayerNorm_0/", "patch_embed/norm/"),
            (r"^SwinStage_(\d)/PatchMerge_0/", _next("layers/{}/downsample/")),
            (r"/downsample/LayerNorm_0/", "/downsample/norm/"),
            (r"/downsample/Dense_0/", "/downsample/reduction/"),
            (r"^SwinStage_(\d)/MetaFormerBlock_(\d+)/", r"layers/\1/blocks/\2/"),
            *_METAFORMER,
            (r"(/blocks/\d+)/LayerNorm_0/", r"\1/norm1/"),
            (r"^Head_0/LayerNorm_0/", "norm/"),
            (r"^Head_0/Dense_0/", "head/fc/"),
        ),
    ),
    _Table(
        "efficientnet",
        r"^EfficientNetV2Stage_0/",
        (
            (r"^ConvBNAct_0/Conv_0/", "conv_stem/"),
            (r"^ConvBNAct_0/BatchNorm_0/", "bn1/"),
            (r"^EfficientNetV2Head_0/ConvBNAct_0/Conv_0/", "conv_head/"),
            (r"^EfficientNetV2Head_0/ConvBNAct_0/BatchNorm_0/", "bn2/"),
            (r"^EfficientNetV2Head_0/Head_0/Dense_0/", "classifier/"),
            (r"^EfficientNetV2Stage_(\d)/(\w+?)_(\d+)/", r"blocks/\1/\3/\2/"),
            (r"/ResConvBNAct/ConvBNAct_0/Conv_0/", "/conv/"),
            (r"/FusedMBConv/ConvBNAct_0/Conv_0/", "/conv_exp/"),
            (r"/FusedMBConv/ConvBNAct_1/Conv_0/", "/conv_pwl/"),
            (r"/MBConv/ConvBNAct_0/Conv_0/", "/conv_pw/"),
            (r"/MBConv/DWSeparableConv_0/ConvBNAct_0/Conv_0/", "/conv_dw/"),
            (r"/MBConv/DWSeparableConv_0/ConvBNAct_1/Conv_0/", "/conv_pwl/"),
            (r"/MBConv/DWSeparableConv_0/SE_0/MLP_0/Dense_0/", "/se/conv_reduce/"),
            (r"/MBConv/DWSeparableConv_0/SE_0/MLP_0/Dense_1/", "/se/conv_expand/"),
            (r"/MBConv/DWSeparableConv_0/ConvBNAct_0/BatchNorm_0/", "/bn2/"),
            (r"/MBConv/DWSeparableConv_0/ConvBNAct_1/BatchNorm_0/", "/bn3/"),
            (r"/(?:ResConvBNAct|FusedMBConv|MBConv)/ConvBNAct_(\d)/BatchNorm_0/", _next("/bn{}/")),
        ),
    ),
    _Table(
        "maxvit",
        r"^MaxViTStage_0/",
        (
            (r"^MaxViTStem_0/ConvBNAct_0/Conv_0/", "stem/conv1/"),
            (r"^MaxViTStem_0/ConvBNAct_0/BatchNorm_0/", "stem/norm1/"),
            (r"^MaxViTStem_0/Conv_0/", "stem/conv2/"),
            (r"^MaxViTStage_(\d)/MaxViTBlock_(\d+)/", r"stages/\1/blocks/\2/"),
            (r"/PreNormMBConv_0/PreNormMBConvDownsample_0/Conv_0/", "/conv/shortcut/expand/"),
            (r"/PreNormMBConv_0/ConvBNAct_0/Conv_0/", "/conv/conv1_1x1/"),
            (r"/PreNormMBConv_0/ConvBNAct_1/Conv_0/", "/conv/conv2_kxk/"),
            (r"/PreNormMBConv_0/Conv_0/", "/conv/conv3_1x1/"),
            (r"/PreNormMBConv_0/ConvBNAct_(\d)/BatchNorm_0/", _next("/conv/norm{}/")),
            (r"/PreNormMBConv_0/BatchNorm_0/", "/conv/pre_norm/"),
            (r"/PreNormMBConv_0/SE_0/", "/conv/SE_0/"),
            (r"/MetaFormerBlock_0/", "/attn_block/"),
            (r"/MetaFormerBlock_1/", "/attn_grid/"),
            *_METAFORMER,
            (r"(/attn_(?:block|grid))/LayerNorm_0/", r"\1/norm1/"),
            (r"^MaxViTHead_0/Head_0/LayerNorm_0/", "head/norm/"),
            (r"^MaxViTHead_0/Head_0/Dense_0/", "head/pre_logits/fc/"),
            (r"^MaxViTHead_0/Dense_0/", "head/fc/"),
        ),
    ),
    _Table(
        "resnet",
        r"^ResNetStage_0/",
        (
            (r"^ResNetStem_0/ConvBNAct_0/Conv_0/", "conv1/"),
            (r"^ResNetStem_0/ConvBNAct_0/BatchNorm_0/", "bn1/"),
            (r"^ResNetDStem_0/ConvBNAct_3/Conv_0/", "maxpool/0/"),
            (r"^ResNetDStem_0/ConvBNAct_3/BatchNorm_0/", "maxpool/1/"),
            (r"^ResNetDStem_0/ConvBNAct_2/BatchNorm_0/", "bn1/"),
            (r"^ResNetDStem_0/ConvBNAct_(\d)/Conv_0/", lambda match: f"conv1/{3 * int(match[1])}/"),
            (r"^ResNetDStem_0/ConvBNAct_(\d)/BatchNorm_0/", lambda match: f"conv1/{3 * int(match[1]) + 1}/"),
            (r"^ResNetStage_(\d)/\w+Block_(\d+)/", lambda match: f"layer{int(match[1]) + 1}/{match[2]}/"),
            (r"/ECA_0/Conv_0/", "/se/conv/"),
            *_MLP,
            (r"/ResNetDownsample_0/ConvBNAct_0/", "/ResNetDownsample_0/"),
            (r"/ConvBNAct_(\d)/Conv_0/", _next("/conv{}/")),
            (r"/ConvBNAct_(\d)/BatchNorm_0/", _next("/bn{}/")),
            (r"^Head_0/Dense_0/", "fc/"),
        ),
        (
            (
                "average_shortcut",
                lambda average: not average,
                (
                    (r"/ResNetDownsample_0/Conv_0/", "/downsample/0/"),
                    (r"/ResNetDownsample_0/BatchNorm_0/", "/downsample/1/"),
                ),
            ),
            (
                "average_shortcut",
                lambda average: average,
                (
                    (r"/ResNetDownsample_0/Conv_0/", "/downsample/1/"),
                    (r"/ResNetDownsample_0/BatchNorm_0/", "/downsample/2/"),
                ),
            ),
        ),
    ),
)


def recognises(tensors: Tensors, documents: Documents) -> bool:
    """Whether the tensors have the original's names."""
    return any(map(_MARKER.search, tensors))


def describe(tensors: Tensors, documents: Documents, where: str) -> CheckpointInfo:
    """The catalogue's row of the model whose tensors are at `where`, with the number of classes in the file.

    Raises:
        CheckpointError: There is no such model; the message names its family, or its modules if flaim lacks the family.
    """
    paths = {name.partition("/")[2] for name in tensors}
    table = next((table for table in TABLES if any(re.search(table.marker, path) for path in paths)), None)
    if table is None:
        tops = ", ".join(sorted({re.sub(r"_\d+/.*", "", path) for path in paths}))
        raise CheckpointError(f"{where} holds a model of the original flaim's that this one does not have, of {tops}")
    rows = [
        row
        for row in catalogue.rows(timm=False, keras=False)
        if row.family == table.family and catalogue.is_implemented(row)
    ]
    named = PurePath(where).stem
    rows.sort(key=lambda row: (row.flaim_repo or "").partition("/")[2] != named)
    for row in rows:
        if (info := _fitted(row, tensors)) is not None:
            return info
    raise CheckpointError(
        f"{where} holds a {table.family} of the original flaim's that has the shapes of none that it published"
    )


def _fitted(row: CheckpointInfo, tensors: Tensors) -> CheckpointInfo | None:
    """The row with the tensors' classes and image size; None if the other shapes do not fit its model."""
    model = registry.create(row.architecture, input_size=row.input_size, **options_from(row.overrides, row.family))
    classifier = f"params/{model.classifier}/"
    found = {path: tuple(value.shape) for path, value in translate(tensors, row, {}).items()}
    expected = {path: leaf.shape for path, leaf in core.flatten(model.spec()).items()}
    n_classes = found.get(f"{classifier}bias", (-1,))[0]
    position = "params/pos_embed"
    size = row.input_size
    if position in expected and position in found:
        patch = expected["params/patch_embed/proj/kernel"][0]
        prefix = expected[position][1] - (size[0] // patch) * (size[1] // patch)
        side = math.isqrt(max(found[position][1] - prefix, 0)) * patch
        size, expected[position] = (side, side), found[position]
    same = {path for path in {*found, *expected} if not path.startswith(classifier)}
    if any(_squeezed(found.get(path)) != _squeezed(expected.get(path)) for path in same):
        return None
    return row.replace(n_classes=n_classes, input_size=size)


def _squeezed(shape: tuple[int, ...] | None) -> list[int] | None:
    return None if shape is None else [side for side in shape if side != 1]


def translate(tensors: Tensors, info: CheckpointInfo, leaves: Mapping[str, core.Leaf]) -> dict[str, Any]:
    """The tensors by the paths of flaim's leaves, in its layout."""
    table = next(table for table in TABLES if table.family == info.family)
    model = registry.create(info.architecture, **options_from(info.overrides, info.family))
    defaults = {p.name: p.default for p in inspect.signature(model.fn).parameters.values()}
    options = {**defaults, **dict(model.config)}
    rules = [*_CONV, *table.rules]
    for option, holds, further in table.options:
        rules += further if holds(options[option]) else ()
    found = {}
    for name, tensor in tensors.items():
        collection, _, path = name.partition("/")
        if not _COMPUTED.match(name):
            found[f"{collection}/{rename(path, rules) or path}"] = tensor
    if (position := found.get("params/pos_embed")) is not None:
        found["params/pos_embed"] = position.reshape(1, *position.shape[-2:])
    return found


FLAIM_V0 = Converter("flaim_v0", recognises, describe, translate)
