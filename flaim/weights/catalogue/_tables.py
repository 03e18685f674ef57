"""The catalogue's tables, with one line per checkpoint, and timm's accuracies."""

import csv
import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from flaim import _index
from flaim.weights.info import NORMALISATIONS, CheckpointInfo, Location, Preprocessing, size_of

FOLDER = Path(str(resources.files(__package__)))
TIMM = FOLDER / "timm"


class Accuracy(NamedTuple):
    """Top-1 and top-5 accuracy on ImageNet-1k's validation images, in percent, at one image size; timm's figures."""

    size: int
    top1: float
    top5: float


def rows(*, flaim: bool = True, timm: bool = True, keras: bool = True) -> list[CheckpointInfo]:
    """The catalogue's rows from the chosen tables, including families that are not implemented yet."""
    wanted = {"flaim": flaim, "keras": keras, "timm": timm}
    return [row for name, asked in wanted.items() if asked for group in table(name).values() for row in group]


def is_implemented(row: CheckpointInfo) -> bool:
    """Whether flaim has the row's architecture."""
    return _index.is_architecture(row.architecture)


@functools.cache
def table(name: str) -> dict[str, list[CheckpointInfo]]:
    """The rows of the table `"flaim"`, `"keras"` or `"timm"` by model name, in file order; timm's names are sorted."""
    files = sorted(TIMM.glob("*.jsonl")) if name == "timm" else [FOLDER / f"{name}.jsonl"]
    found: dict[str, list[CheckpointInfo]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = _row(json.loads(line))
            found.setdefault(row.model, []).append(row)
    return dict(sorted(found.items())) if name == "timm" else found


def _row(line: Mapping) -> CheckpointInfo:
    mean, std = NORMALISATIONS[line["norm"]]
    model, params, timm_id = line["model"], line["params"], line.get("timm")
    is_own = "flaim" in line
    is_keras = not is_own and "url" in line
    if is_keras:
        line = {"architecture": model, **line}
    elif not is_own:
        timm_id = f"{model}.{params}"
    architecture = line.get("architecture") or (timm_id or "").partition(".")[0]
    # The line's own family is for architectures that are not implemented yet.
    family = _index.family_of(architecture) if _index.is_architecture(architecture) else line["family"]
    return CheckpointInfo(
        model=model,
        params=params,
        family=family,
        architecture=architecture,
        overrides=line.get("overrides", {}),
        n_classes=line["classes"] if line["classes"] != 0 else -1,
        in_channels=line.get("in_channels", 3),
        preprocessing=Preprocessing(
            input_size=size_of(line["size"]),
            mean=mean,
            std=std,
            interpolation=line.get("interpolation", "bicubic"),
            crop_pct=line.get("crop_pct"),
            crop_mode=line.get("crop_mode", "center"),
            test_input_size=size_of(line["test_size"]) if "test_size" in line else None,
            test_crop_pct=line.get("test_crop_pct"),
        ),
        location=Location(repo=line.get("hub"), file=line.get("file"), url=line.get("url"), digest=line.get("digest")),
        converter="keras" if is_keras else "timm",
        timm_id=timm_id,
        license=line["license"],
        flaim_repo=line.get("flaim"),
        note=line.get("note"),
        source=line.get("source"),
    )


@functools.cache
def _accuracies() -> dict[str, list[Accuracy]]:
    found: dict[str, list[Accuracy]] = {}
    with (FOLDER / "accuracy.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            measured = Accuracy(int(line["size"]), float(line["top1"]), float(line["top5"]))
            found.setdefault(line["timm_id"], []).append(measured)
    return found


def accuracies(row: CheckpointInfo) -> list[Accuracy]:
    """timm's accuracies of a checkpoint; the one at the image size of its training comes first."""
    measured: Iterable[Accuracy] = _accuracies().get(row.timm_id or "", ())
    return sorted(measured, key=lambda accuracy: accuracy.size != max(row.input_size))
