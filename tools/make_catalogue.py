"""Write flaim/weights/catalogue/timm.jsonl: every pretrained checkpoint of timm's modules that flaim's families cover.

Run it from the root of the repository, `python -m tools.make_catalogue`, when timm's version changes, and read the
difference before committing it. It needs what the tests need.
"""

import json
from pathlib import Path

from flaim import models
from flaim.weights.info import NORMALISATIONS
from tests.oracle import timm

# timm's module to flaim's family.
FAMILIES = {
    "convnext": "convnext",
    "deit": "vit",
    "densenet": "densenet",
    "efficientnet": "efficientnet",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "maxxvit": "maxvit",
    "mobilenetv3": "mobilenetv3",
    "nasnet": "nasnet",
    "resnet": "resnet",
    "resnetv2": "resnetv2",
    "swin_transformer": "swin",
    "vgg": "vgg",
    "vision_transformer": "vit",
    "xception": "xception",
}
_registry = timm.models._registry
_NORMALISATION_NAMES = {stats: name for name, stats in NORMALISATIONS.items()}


def line(row: dict) -> str:
    """One row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def side(size: tuple[int, int, int]) -> int | list[int]:
    """timm's (channels, height, width) as one number where the images are square."""
    return size[1] if size[1] == size[2] else list(size[1:])


def rows():
    """One row a checkpoint; the default one of an architecture comes first."""
    for architecture, module in sorted(_registry._model_to_module.items()):
        if module not in FAMILIES or architecture not in _registry._model_default_cfgs:
            continue
        # A module may have more than the family. Pruned models keep their rows: asked for, they are not implemented.
        if architecture not in models.family(FAMILIES[module]).variants and not architecture.endswith("_pruned"):
            continue
        for tag in _registry._model_default_cfgs[architecture].tags:
            name = f"{architecture}.{tag}"
            cfg = timm.models.get_pretrained_cfg(name)
            if not cfg.hf_hub_id:
                continue
            row = {"model": architecture, "params": tag, "family": FAMILIES[module], "hub": cfg.hf_hub_id}
            row["size"] = side(cfg.input_size)
            if cfg.test_input_size:
                row["test_size"] = side(cfg.test_input_size)
            if cfg.input_size[0] != 3:
                row["in_channels"] = cfg.input_size[0]
            row["norm"] = _NORMALISATION_NAMES[cfg.mean, cfg.std]
            if cfg.interpolation != "bicubic":
                row["interpolation"] = cfg.interpolation
            row["crop_pct"] = cfg.crop_pct
            if cfg.test_crop_pct:
                row["test_crop_pct"] = cfg.test_crop_pct
            if cfg.crop_mode != "center":
                row["crop_mode"] = cfg.crop_mode
            row |= {"classes": cfg.num_classes, "license": cfg.license}
            if cfg.notes:
                row["note"] = "; ".join(cfg.notes)
            yield row


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "flaim" / "weights" / "catalogue" / "timm.jsonl"
    target.write_text("".join(map(line, rows())), encoding="utf-8")
    print(f"{target}: {len(target.read_text(encoding='utf-8').splitlines())} checkpoints of timm {timm.__version__}")
