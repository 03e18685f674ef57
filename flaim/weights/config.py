"""What is known of a checkpoint: a line of the catalogue, or the configuration that came with a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# Mean and standard deviation, for pixels in [0, 1], that the catalogue refers to by name.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
    "128": ((128 / 255,) * 3, (128 / 255,) * 3),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

# Licenses in the catalogue that do not permit commercial use.
_NON_COMMERCIAL = {"apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "seer-license"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checkpoint's model, preprocessing, origin and license.

    Attributes:
        model: The name it goes by: flaim's model name, or timm's architecture.
        params: flaim's parameters name (`"in1k_224"`), or timm's tag (`"a1_in1k"`).
        family: Module of `flaim.models` that has the architecture, or would have.
        architecture: Name that `flaim.models.create` takes.
        overrides: Options that make the architecture this checkpoint's, in the form that JSON gives them; a function
            is `{"function": name}`, its name in the family's module.
        n_classes: Classes that the file's classifier tells apart; as in `get_model`, -1 where it has no classifier, 0
            where it has nothing of a head; None where nobody says.
        input_size: Height and width of the images it was trained or fine-tuned on last.
        in_channels: Channels of its images.
        mean, std: Of the pixels, in [0, 1].
        interpolation, crop_pct, crop_mode: Evaluation preprocessing, as `flaim.data.Preprocess` takes it.
        test_input_size, test_crop_pct: At which it evaluates better than at its own, where its authors say so.
        timm_id: timm's name of it, `"resnet50.a1_in1k"`.
        dialect: Whose names the file's tensors have: `"timm"`, `"flaim"`, or a module of `flaim.weights`.
        repo: Repository on the Hugging Face Hub, `"timm/resnet50.a1_in1k"`, perhaps with `"@revision"`.
        file: Path of its weights in the repository, where they do not go by one of the usual names.
        url, digest: Address of its file where that is not on the Hub, and the hash, `"md5:..."` or `"sha256:..."`.
        path: Where it lies on this machine: a folder or a file.
        license: SPDX identifier, or the name its authors gave.
        flaim_repo: Repository of the original flaim's own copy, a pickle; kept as a record.
        labels: Class names, where the file says them.
        note, source: What else is known, and the address of the original file where it is not on the Hub.
    """

    model: str = ""
    params: str = ""
    family: str = ""
    architecture: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    n_classes: int | None = 1000
    input_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    mean: tuple[float, ...] = NORMALISATIONS["imagenet"][0]
    std: tuple[float, ...] = NORMALISATIONS["imagenet"][1]
    interpolation: str = "bicubic"
    crop_pct: float | None = None
    crop_mode: str = "center"
    test_input_size: tuple[int, int] | None = None
    test_crop_pct: float | None = None
    timm_id: str | None = None
    dialect: str = "timm"
    repo: str | None = None
    file: str | None = None
    url: str | None = None
    digest: str | None = None
    path: str | None = None
    license: str | None = None
    flaim_repo: str | None = None
    labels: tuple[str, ...] | None = None
    note: str | None = None
    source: str | None = None

    @property
    def non_commercial(self) -> bool:
        """Whether the license forbids commercial use."""
        return self.license in _NON_COMMERCIAL

    @property
    def norm_stats(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation of the pixels, as `get_model` returns them."""
        return {"mean": self.mean, "std": self.std}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Evaluation preprocessing, as `flaim.data.Preprocess.from_row` takes it."""
        names = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def replace(self, **fields) -> "Config":
        """The same configuration with other fields."""
        return replace(self, **fields)


def size_of(value: Any) -> tuple[int, int]:
    """Height and width from one number, (height, width) or timm's (channels, height, width)."""
    if isinstance(value, int):
        return value, value
    height, width = value[-2:]
    return int(height), int(width)
