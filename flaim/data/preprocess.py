"""From image files, bytes, PIL images and arrays to the normalised batch that a checkpoint was evaluated on."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

# Any stands for PIL.Image.Image: Pillow is imported when the first image is read, not before.
ImageLike: TypeAlias = str | os.PathLike | bytes | np.ndarray | Any

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_CROP_MODES = ("center", "border", "squash")
_MAX_RESIZED_PIXELS = 2**28  # 1 GiB in Pillow; only a very narrow image or a tiny crop fraction needs more


class ImageError(ValueError):
    """The input is not an image, or cannot be preprocessed."""


@dataclass(frozen=True)
class Preprocess:
    """Evaluation preprocessing: decode, resize, crop, normalise.

    The image is resized so that the crop is `crop_pct` of it, then cropped at its centre to `input_size`.

    - `crop_mode="center"` keeps the aspect ratio and fits the shorter side, so the longer side is cropped;
    - `"border"` keeps it and fits the longer side; the rest is filled with the mean colour;
    - `"squash"` fits both sides and changes the aspect ratio.

    `input_size` is one number or (height, width). `mean` and `std` are for pixels in [0, 1]: three values (RGB) or one
    (grey). With a `crop_pct` above 1 the image is smaller than the crop; the rest is black, or the mean colour if
    `crop_mode` is "border".

    The results equal timm's bit for bit, with its limits: EXIF orientation is not applied, and Pillow clips 16-bit grey
    files at 255, so scale those to 8 bits first.
    """

    input_size: int | Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def __post_init__(self):
        # Rows read from JSON hold lists; tuples keep the dataclass hashable.
        for name in ("input_size", "mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

        problems = []
        if len(self.size) != 2 or not all(isinstance(side, int) and side > 0 for side in self.size):
            problems.append(f"input_size={self.input_size!r}, expected a positive integer or (height, width)")
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std) or not finite or min(self.std) <= 0:
            problems.append(
                f"mean={self.mean} and std={self.std}, expected 3 values each (RGB) or 1 each (grey), "
                "all finite and std above 0"
            )
        if self.interpolation not in _INTERPOLATIONS:
            problems.append(f"interpolation={self.interpolation!r}, expected one of {', '.join(_INTERPOLATIONS)}")
        if not 0 < self.crop_pct < math.inf:
            problems.append(f"crop_pct={self.crop_pct}, expected a positive fraction such as 0.875")
        if self.crop_mode not in _CROP_MODES:
            problems.append(f"crop_mode={self.crop_mode!r}, expected one of {', '.join(_CROP_MODES)}")
        if problems:
            raise ValueError("Preprocess: " + "; ".join(problems))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Preprocess":
        """Preprocessing of a checkpoint, from its row of the catalogue or its configuration.

        `input_size`, `mean` and `std` are required; the rest falls back to timm's defaults if absent or None. Other
        keys are ignored.
        """
        known = {key: row[key] for key in cls.__dataclass_fields__ if row.get(key) is not None}
        missing = [key for key in ("input_size", "mean", "std") if key not in known]
        if missing:
            raise ValueError(
                f"no {', '.join(missing)} in the checkpoint's row, which has {', '.join(row) or 'nothing'}"
            )
        size = known["input_size"]
        if not isinstance(size, int) and len(size) == 3:
            known["input_size"] = tuple(size[1:])  # timm's configurations say (channels, height, width)
        return cls(**known)

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of the model's input."""
        return self.input_size if isinstance(self.input_size, tuple) else (self.input_size,) * 2

    def __call__(
        self, images: ImageLike | list[ImageLike] | tuple[ImageLike, ...]
    ) -> Float32[np.ndarray, "batch height width channels"]:
        """Normalised batch from one image or a list of them.

        An image is a path, the bytes of an image file, a PIL image, or an array (see `pixels`); an array of four axes
        is a batch. Raises `ImageError`, which lists every image that cannot be used.
        """
        pixels, problems = [], []
        images = _as_list(images)
        for index, image in enumerate(images):
            try:
                pixels.append(self.pixels(image))
            except ImageError as error:
                problems.append(f"image {index} of {len(images)}: {error}" if len(images) > 1 else str(error))
        if problems:
            raise ImageError("\n".join(problems))
        if not pixels:
            raise ImageError("no images: expected at least one")
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (np.stack(pixels).astype(np.float32) / np.float32(255) - mean) / std

    def pixels(self, image: ImageLike) -> UInt8[np.ndarray, "height width channels"]:
        """One image resized and cropped, not yet normalised.

        Arrays are `(height, width)` or `(height, width, channels)` of 1, 3 or 4 (RGBA) channels: uint8, or floats in
        [0, 1]. Pillow converts all images to RGB, or to grey if `mean` has one value.
        """
        from PIL import Image

        picture = _read(image, "L" if len(self.mean) == 1 else "RGB")
        height, width = self.size
        resized_height, resized_width = self._resized(picture.height, picture.width)
        if resized_height * resized_width > _MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{_describe(image)}: {picture.height}x{picture.width} (height x width) would be resized to "
                f"{resized_height}x{resized_width} before the crop to {height}x{width}; crop the image first"
            )
        picture = picture.resize((resized_width, resized_height), Image.Resampling[self.interpolation.upper()])

        fill = [round(255 * value) for value in self.mean] if self.crop_mode == "border" else [0] * len(self.mean)
        canvas = Image.new(picture.mode, (width, height), tuple(fill))
        canvas.paste(picture, (_offset(resized_width, width), _offset(resized_height, height)))
        return np.asarray(canvas).reshape(height, width, len(self.mean))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image is resized before the crop, rounded as in timm and torchvision."""
        target_height, target_width = (max(math.floor(side / self.crop_pct), 1) for side in self.size)
        if self.crop_mode == "squash":
            resized = target_height, target_width
        elif self.crop_mode == "center" and target_height == target_width:
            # torchvision's resize of the shorter side rounds the longer one down.
            short, long = target_height, int(target_height * max(height, width) / min(height, width))
            resized = (short, long) if height <= width else (long, short)
        else:  # timm rounds both
            fit = max if self.crop_mode == "border" else min
            ratio = fit(height / target_height, width / target_width)
            resized = round(height / ratio), round(width / ratio)
        return max(resized[0], 1), max(resized[1], 1)


def _offset(size: int, crop: int) -> int:
    """Where an image of `size` starts in its centre crop or, if smaller, in the padding: torchvision's rounding."""
    return (crop - size) // 2 if size < crop else -round((size - crop) / 2)


def _as_list(images: ImageLike | list[ImageLike] | tuple[ImageLike, ...]) -> list[ImageLike]:
    if isinstance(images, list | tuple):
        return list(images)
    if getattr(images, "ndim", None) == 4:
        return list(np.asarray(images))
    return [images]


def _describe(image: ImageLike) -> str:
    """What error messages call the image: its path if it has one."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, bytes):
        return f"{len(image)} bytes"
    if hasattr(image, "shape"):
        return f"array of shape {tuple(image.shape)}"
    return getattr(image, "filename", "") or type(image).__name__


def _read(image: ImageLike, mode: str) -> Any:
    """The image as a PIL image of `mode`."""
    from PIL import Image

    name = _describe(image)
    if hasattr(image, "shape"):
        image = Image.fromarray(_as_uint8(np.asarray(image), name))
    try:
        if isinstance(image, Image.Image):
            return image.convert(mode)
        if isinstance(image, str | os.PathLike | bytes):
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as file:
                return file.convert(mode)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder, expected an image file") from None
    except PermissionError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, expected a file that Pillow reads (JPEG, PNG, WebP, ...)") from None
    except Exception as error:  # Pillow's decoders raise all kinds of errors on a damaged file
        raise ImageError(f"{name}: truncated, damaged or unsupported image ({error})") from error
    raise ImageError(f"{name} is not an image: expected a path, bytes, a PIL image or an array")


def _as_uint8(array: np.ndarray, name: str) -> np.ndarray:
    """The array as `(height, width)` or `(height, width, 3 or 4)` of uint8."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)) or array.size == 0:
        hint = "; transpose channels-first with array.transpose(1, 2, 0)" if array.shape[:1] in ((1,), (3,)) else ""
        raise ImageError(f"{name}: expected (height, width) or (height, width, channels), 1, 3 or 4 channels{hint}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise ImageError(f"{name}: {array.dtype}, expected uint8 in [0, 255] or float in [0, 1]")
    if not np.isfinite(array).all():
        raise ImageError(f"{name}: {np.sum(~np.isfinite(array))} of {array.size} values are not finite (NaN, infinity)")
    if array.min() < 0 or array.max() > 1:
        raise ImageError(
            f"{name}: floats from {array.min():.6g} to {array.max():.6g}, expected [0, 1]; "
            "give 0 to 255 as uint8, and images that are already normalised to the model itself"
        )
    return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
