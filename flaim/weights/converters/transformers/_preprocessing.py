"""Evaluation preprocessing from transformers' image processors."""

import math
from collections.abc import Mapping
from typing import Any

_PIL = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def preprocessing_of(defaults: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Preprocessing` from a `preprocessor_config.json` and the defaults of its class."""
    config = {name: value for name, value in processor.items() if value is not None}
    p = {**defaults, **config}
    if "size" in config and "crop_pct" not in config:  # the file's class does not have this option
        p.pop("crop_pct", None)
    mean, std = p["image_mean"], p["image_std"]
    if not p.get("do_normalize", True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    scale = 255 * (p.get("rescale_factor", 1 / 255) if p.get("do_rescale", True) else 1.0)
    offset = 1.0 if p.get("rescale_offset") else 0.0
    if p.get("include_top"):  # EfficientNet's processor divides by the deviation twice
        std = [value * value for value in std]
    fields: dict[str, Any] = {
        "mean": tuple((value + offset) / scale for value in mean),
        "std": tuple(value / scale for value in std),
        "interpolation": _PIL[p["resample"]],
        "crop_pct": 1.0,
    }
    if "size" not in p or not p.get("do_resize", True):
        return fields | {"crop_mode": "squash"}
    edge, size = _edge(p["size"]), _sides(p["size"])
    square = edge is None or (isinstance(p["size"], int) and p["square"])
    if "crop_pct" in p and edge and p["crop_pct"]:  # ConvNeXt's: small images are cropped, large ones are not
        square = edge >= 384
        fields["crop_pct"] = 1.0 if square else p["crop_pct"]
    elif p.get("do_center_crop"):
        resized, size = size, _sides(p.get("crop_size", p["size"]))
        fields["crop_pct"] = _fraction(size[0], resized[0])
    return fields | {"input_size": size, "crop_mode": "squash" if square else "center"}


def _edge(size: Any) -> int | None:
    """The value of transformers' size if it is one number, otherwise None."""
    return size if isinstance(size, int) else size.get("shortest_edge")


def _sides(size: Any) -> tuple[int, int]:
    """Height and width."""
    edge = _edge(size)
    return (edge, edge) if edge else (size["height"], size["width"])


def _fraction(crop: int, resized: int) -> float:
    """`part = crop / resized`, rounded so that `floor(crop / part)` gives `resized` again."""
    part = crop / resized
    return part if math.floor(crop / part) == resized else math.nextafter(part, 0.0)
