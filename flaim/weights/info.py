"""`CheckpointInfo` describes a checkpoint, `Location` says where it is, `Preprocessing` how to prepare its images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

# Mean and standard deviation, for pixels in [0, 1], that the catalogue refers to by name.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "satellite": ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
    "128": ((128 / 255,) * 3, (128 / 255,) * 3),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

# Licenses in the catalogue that do not permit commercial use.
_NON_COMMERCIAL = {"apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "seer-license"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessing(Mapping[str, Any]):
    """Evaluation preprocessing, for `flaim.data.Preprocess.from_row`; also a mapping of the fields that are not None.

    Attributes:
        input_size: Height and width of the images that the model was trained or fine-tuned on last.
        mean, std: Of pixels in [0, 1].
        interpolation, crop_pct, crop_mode: As in `flaim.data.Preprocess`.
        test_input_size, test_crop_pct: Values at which the model evaluates better, if its authors give them.
    """

    input_size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = NORMALISATIONS["imagenet"][0]
    std: tuple[float, ...] = NORMALISATIONS["imagenet"][1]
    interpolation: str = "bicubic"
    crop_pct: float | None = None
    crop_mode: str = "center"
    test_input_size: tuple[int, int] | None = None
    test_crop_pct: float | None = None

    def __getitem__(self, name: str) -> Any:
        if name not in PREPROCESSING or (value := getattr(self, name)) is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in PREPROCESSING if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    @property
    def norm_stats(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation, as `get_model` returns them."""
        return {"mean": self.mean, "std": self.std}


PREPROCESSING = tuple(field.name for field in fields(Preprocessing))


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a checkpoint is; all fields are None if that is unknown.

    Attributes:
        path: A local folder or file.
        repo: Repository on the Hugging Face Hub, `"timm/resnet50.a1_in1k"`, optionally with `"@revision"`.
        file: Path of its weights in the repository, if they do not have one of the usual names.
        url, digest: Address of its file, and the file's hash, `"md5:..."` or `"sha256:..."`.
    """

    path: str | None = None
    repo: str | None = None
    file: str | None = None
    url: str | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint's model, preprocessing, location, origin and license.

    Attributes:
        model: flaim's model name, or timm's architecture.
        params: flaim's parameters name (`"in1k_224"`), or timm's tag (`"a1_in1k"`).
        family: Module of `flaim.models` for the architecture, even if it is not implemented yet.
        architecture: Name for `flaim.models.create`; empty if unknown.
        overrides: Options in which the checkpoint differs from the architecture, as JSON (see `flaim.options`).
        n_classes: Classes of the file's classifier. As in `get_model`, -1 means no classifier and 0 no head at all;
            None means unknown.
        in_channels: Channels of its images.
        preprocessing: Of its images.
        location: Where it is.
        converter: Name of the converter for its tensors, a key of `flaim.weights.converters.CONVERTERS`.
        timm_id: timm's name for it, `"resnet50.a1_in1k"`.
        license: SPDX identifier, or the name its authors gave.
        labels: Class names, if the file has them.
        flaim_repo: Repository of the original flaim's own copy, a pickle; kept as a record.
        note, source: Further information, and the address of the original file if it is not on the Hub.
    """

    model: str = ""
    params: str = ""
    family: str = ""
    architecture: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    n_classes: int | None = 1000
    in_channels: int = 3
    preprocessing: Preprocessing = Preprocessing()
    location: Location = Location()
    converter: str = "timm"
    timm_id: str | None = None
    license: str | None = None
    labels: tuple[str, ...] | None = None
    flaim_repo: str | None = None
    note: str | None = None
    source: str | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.preprocessing.input_size

    @property
    def norm_stats(self) -> dict[str, tuple[float, ...]]:
        """Mean and standard deviation of the pixels, as `get_model` returns them."""
        return self.preprocessing.norm_stats

    @property
    def non_commercial(self) -> bool:
        """Whether the license forbids commercial use."""
        return self.license in _NON_COMMERCIAL

    def replace(self, **fields: Any) -> "CheckpointInfo":
        """A copy with other fields; fields of `Preprocessing` and `Location` may be passed directly."""
        nested: dict[str, Any] = {}
        for name, kind in (("preprocessing", Preprocessing), ("location", Location)):
            given = {key: fields.pop(key) for key in list(fields) if key in kind.__dataclass_fields__}
            if given:
                nested[name] = replace(fields.get(name, getattr(self, name)), **given)
        return replace(self, **{**fields, **nested})


def size_of(value: Any) -> tuple[int, int]:
    """Height and width from one number, (height, width) or timm's (channels, height, width)."""
    if isinstance(value, int):
        return value, value
    height, width = value[-2:]
    return int(height), int(width)
