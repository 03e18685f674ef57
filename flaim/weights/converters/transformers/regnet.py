"""RegNet X and Y, SEER's too."""

import re

from flaim import registry
from flaim.family import OlderNames
from flaim.weights.converters.transformers._model_type import HFConfig, Json, ModelType, act
from flaim.weights.converters.transformers._names import NORMED
from flaim.weights.converters.transformers.resnet import PROCESSOR

_VARIANTS = r"^regnet[xy]_\d+$"
_RULE = ("depth", "w0", "wa", "wm", "group_size")
# The SEER with ten billion parameters, which timm does not have.
_TEN_BILLION = (27, 1744, 620.83, 2.52, 1010)


def regnet(c: HFConfig) -> Json:
    """RegNet: the rule that gives the widths and depths of its stages, which must be a published model's."""
    from flaim.models.regnet import nearest_multiple, stages  # the family is imported for its own checkpoints alone

    variants = [v for name, v in registry.family("regnet").variants.items() if re.search(_VARIANTS, name)]
    rules: list[Json] = [{name: variant[name] for name in _RULE} for variant in variants]
    rules.append(dict(zip(_RULE, _TEN_BILLION)))
    wanted = list(zip(c["depths"], c["hidden_sizes"]))

    def fits(rule: Json) -> bool:
        planned = [stage[:2] for stage in stages(**rule, bottle_ratio=1.0, round_width=nearest_multiple)]
        return rule["group_size"] == c["groups_width"] and planned == wanted

    rule = next(filter(fits, rules), None)
    for option in ("hidden_sizes", "depths", "groups_width"):
        c.require(option, rule is not None)
    c.require("layer_type", c["layer_type"] in ("x", "y"))
    squeezes = c["layer_type"] == "y"
    # In squeeze-and-excitation there is always a ReLU.
    c.require("hidden_act", not squeezes or c["hidden_act"] == "relu")
    return {**(rule or {}), "se_ratio": 0.25 if squeezes else 0.0, "act": act(c)}


# fmt: off
MODEL_TYPES = {
    "regnet": ModelType(
        "regnet",
        _VARIANTS,
        {
            "embedding_size": 32, "hidden_sizes": (128, 192, 512, 1088), "depths": (2, 6, 12, 2), "groups_width": 64,
            "layer_type": "y", "hidden_act": "relu", "downsample_in_first_stage": True, "image_size": 224,
        },
        same={"stem_width": "embedding_size"},
        fixed=("downsample_in_first_stage",),
        more=regnet,
        processor=PROCESSOR,
        any_size=True,
    ),
}
# fmt: on

_REGNET_NAMES = OlderNames(
    r"^embedder\.embedder\.",
    (
        (r"^embedder\.embedder\.", "stem."),
        (
            r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.",
            lambda match: f"s{int(match[1]) + 1}.b{int(match[2]) + 1}.",
        ),
        (r"\.layer\.2\.attention\.0\.", ".se.fc1."),
        (r"\.layer\.2\.attention\.2\.", ".se.fc2."),
        (r"\.layer\.([01])\.", lambda match: f".conv{int(match[1]) + 1}."),
        (r"\.layer\.[23]\.", ".conv3."),  # of X, of Y
        (r"\.shortcut\.", ".downsample."),
        *NORMED,
        (r"^classifier\.1\.", "head.fc."),
    ),
)

NAMES = {"regnet": lambda info: (_REGNET_NAMES,)}
