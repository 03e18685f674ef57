"""Write flaim/weights/catalogue/timm/<family>.jsonl: every pretrained timm checkpoint of each family.

Run it from the root of the repository when timm's version changes or a family is new, `python -m tools.make_catalogue`,
after `python -m tools.make_index`, and review the diff before committing it. It needs the tests' dependencies.
"""

import json
from collections.abc import Iterator

from flaim import registry
from flaim.weights.catalogue import TIMM
from flaim.weights.info import NORMALISATIONS
from tests.oracle import timm

_registry = timm.models._registry
_NORMALISATION_NAMES = {stats: name for name, stats in NORMALISATIONS.items()}


def line(row: dict) -> str:
    """One row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def side(size: tuple[int, int, int]) -> int | list[int]:
    """timm's (channels, height, width) as one number where the images are square."""
    return size[1] if size[1] == size[2] else list(size[1:])


def rows(family: str) -> Iterator[dict]:
    """One row per checkpoint of the family; an architecture's default checkpoint comes first."""
    found = registry.family(family)
    modules = found.timm.modules if found.timm else ()
    for architecture, module in sorted(_registry._model_to_module.items()):
        if module not in modules or architecture not in _registry._model_default_cfgs:
            continue
        # A module may have more models than the family. Pruned ones keep their rows, listed as not implemented.
        if architecture.removesuffix("_pruned") not in found.variants:
            continue
        for tag in _registry._model_default_cfgs[architecture].tags:
            if not tag:  # no weights
                continue
            cfg = timm.models.get_pretrained_cfg(f"{architecture}.{tag}")
            if not cfg.hf_hub_id:
                continue
            row = {"model": architecture, "params": tag, "family": family, "hub": cfg.hf_hub_id}
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


def tables() -> dict[str, str]:
    """The tables' texts by file name; a family without checkpoints has none."""
    texts = {f"{family}.jsonl": "".join(map(line, rows(family))) for family in registry.families()}
    return {name: text for name, text in texts.items() if text}


if __name__ == "__main__":
    found = tables()
    TIMM.mkdir(exist_ok=True)
    for stale in {path.name for path in TIMM.glob("*.jsonl")} - set(found):
        (TIMM / stale).unlink()
    for name, text in found.items():
        (TIMM / name).write_text(text, encoding="utf-8")
    total = sum(text.count("\n") for text in found.values())
    print(f"{TIMM}: {total} checkpoints of timm {timm.__version__}, of {len(found)} families")
