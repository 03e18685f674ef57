"""Evaluation preprocessing against timm's, on real photographs and on broken input; class names."""

import io
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flaim.data import ImageError, Preprocess, imagenet_labels, labels_for
from tests import oracle  # before timm: repairs torchvision's import

from timm.data import ImageNetInfo, create_transform  # isort: skip

PHOTOS = {name: Path(sklearn.datasets.__file__).parent / "images" / f"{name}.jpg" for name in ("china", "flower")}
CHINA = PHOTOS["china"]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
GREY = {"mean": (0.449,), "std": (0.226,)}
MODES = ("center", "border", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def timms(picture: Image.Image, *, normalize: bool, input_size, **config) -> np.ndarray:
    """timm's evaluation transform of a PIL image, channels last: normalised, or the 8-bit pixels before that."""
    transform = create_transform(input_size, is_training=False, normalize=normalize, **config)
    return transform(picture).numpy().transpose(1, 2, 0)


def check(picture: Image.Image, **config) -> None:
    """Same pixels as timm, and the same float32 numbers after normalisation, to the bit."""
    preprocess = Preprocess(**config)
    picture = picture.convert("RGB" if len(config["mean"]) == 3 else "L")
    np.testing.assert_array_equal(preprocess.pixels(picture), timms(picture, normalize=False, **config))
    np.testing.assert_array_equal(preprocess(picture)[0], timms(picture, normalize=True, **config))


@pytest.fixture(scope="module")
def photos() -> dict[str, Image.Image]:
    return {name: Image.open(path).convert("RGB") for name, path in PHOTOS.items()}


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess(32, **IMAGENET)


# 1.15 is ConvMixer's: the image ends up smaller than the crop.
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 0.965, 1.0, 1.15])
@pytest.mark.parametrize("input_size", [224, 299, (192, 256), (257, 131), (33, 34)])
@pytest.mark.parametrize("crop_mode", MODES)
def test_photographs_equal_timm(photos, crop_mode, input_size, crop_pct):
    for picture in photos.values():
        check(
            picture, input_size=input_size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bicubic", **IMAGENET
        )


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("stats", [IMAGENET, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize("crop_mode", MODES)
def test_interpolations_and_channels_equal_timm(photos, crop_mode, stats, interpolation):
    for picture in (photos["china"], photos["flower"].rotate(90, expand=True)):  # landscape and portrait
        check(picture, input_size=160, crop_pct=0.9, crop_mode=crop_mode, interpolation=interpolation, **stats)


side = st.integers(1, 70)


@given(
    image_size=st.tuples(side, side),
    input_size=st.tuples(side, side) | side,
    crop_pct=st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0]),
    crop_mode=st.sampled_from(MODES),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_size_equals_timm(photos, image_size, input_size, crop_pct, crop_mode):
    picture = photos["flower"].crop((200, 100, 200 + image_size[1], 100 + image_size[0]))
    config = {"input_size": input_size, "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": "bicubic"}
    try:
        timms(picture, normalize=False, **config, **IMAGENET)
    except ValueError as error:  # a sliver whose short side timm rounds to nothing; one pixel is left of it here
        assert "must be > 0" in str(error)
        height, width = Preprocess(**config, **IMAGENET).size
        assert Preprocess(**config, **IMAGENET)(picture).shape == (1, height, width, 3)
    else:
        check(picture, **config, **IMAGENET)


def test_path_bytes_picture_and_array_are_the_same_image(preprocess, photos):
    array = np.asarray(photos["china"])
    forms = [CHINA, str(CHINA), CHINA.read_bytes(), photos["china"], Image.open(CHINA), array, jnp.asarray(array)]
    batch = preprocess([*forms, array / 255, (array / 255).astype(np.float32), np.flip(array)[::-1, ::-1, ::-1]])
    assert batch.shape == (len(forms) + 3, 32, 32, 3)
    assert batch.dtype == np.float32
    for image in batch[1:]:
        np.testing.assert_array_equal(image, batch[0])
    for single in forms:
        np.testing.assert_array_equal(preprocess(single), batch[:1])


def test_array_of_four_axes_is_a_batch(preprocess, photos):
    images = np.stack([np.asarray(picture) for picture in photos.values()])
    np.testing.assert_array_equal(preprocess(images), preprocess(list(PHOTOS.values())))
    np.testing.assert_array_equal(preprocess(jnp.asarray(images)), preprocess(tuple(images)))


def test_grey_arrays(photos):
    grey = np.asarray(photos["china"].convert("L"))
    rgb, one = Preprocess(32, **IMAGENET), Preprocess(32, **GREY)
    np.testing.assert_array_equal(rgb.pixels(grey), rgb.pixels(np.stack([grey] * 3, axis=-1)))
    np.testing.assert_array_equal(one.pixels(grey), rgb.pixels(grey)[..., :1])
    np.testing.assert_array_equal(one(grey[None, ..., None]), one(photos["china"]))
    assert one(grey).shape == (1, 32, 32, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("stats", [IMAGENET, GREY], ids=["rgb", "grey"])
def test_every_kind_of_file_is_converted_as_timm_loads_it(tmp_path, photos, mode, stats):
    small = photos["flower"].resize((48, 40))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 3)
    else:
        picture = small.convert("L").convert(mode) if mode in "IF" else small.convert(mode)
    path = tmp_path / "picture.tiff"
    picture.save(path)
    with Image.open(path) as file:
        assert file.mode == mode
        loaded = file.convert("RGB" if stats is IMAGENET else "L")
    config = {"input_size": 24, "interpolation": "bilinear", "crop_pct": 0.875, **stats}
    expected = timms(loaded, normalize=False, **config)
    np.testing.assert_array_equal(Preprocess(**config).pixels(path), expected)
    np.testing.assert_array_equal(Preprocess(**config).pixels(path.read_bytes()), expected)


def test_rgba_array_and_exif_orientation_are_read_as_by_timm(preprocess, tmp_path, photos):
    rgba = photos["flower"].convert("RGBA")
    rgba.putalpha(90)
    np.testing.assert_array_equal(preprocess(np.asarray(rgba)), preprocess(photos["flower"]))

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    photos["flower"].save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(preprocess(tmp_path / "turned.png"), preprocess(photos["flower"]))


def test_from_row(photos):
    row = {"input_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 0.9}
    built = Preprocess.from_row({**row, "license": "apache-2.0", "crop_mode": "squash"})
    assert built == Preprocess(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.9, "squash")
    assert hash(built) == hash(Preprocess.from_row(json.loads(json.dumps({**row, "crop_mode": "squash"}))))
    assert Preprocess.from_row({**row, "crop_pct": None}).crop_pct == 0.875
    assert Preprocess.from_row(row).crop_mode == "center"
    assert Preprocess.from_row({**row, "input_size": [192, 256]}).size == (192, 256)
    assert Preprocess.from_row({**row, "input_size": [3, 192, 256]}).size == (192, 256)
    with pytest.raises(ValueError, match=r"no input_size, std in the checkpoint's row, which has mean, license"):
        Preprocess.from_row({"mean": [0.5] * 3, "license": "mit"})


@pytest.mark.parametrize(
    ("name", "crop_mode"),
    [
        ("resnet50.a1_in1k", "center"),
        ("convnext_base.fb_in22k_ft_in1k_384", "squash"),
        ("vit_so400m_patch14_siglip_378.webli_ft_in1k", "squash"),
        ("deepseek_vit_412m.deepseek_v4_1_flash", "border"),
    ],
)
def test_from_timms_own_configurations(photos, name, crop_mode):
    cfg = oracle.timm.get_pretrained_cfg(name).to_dict()
    assert cfg["crop_mode"] == crop_mode
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
    expected = timms(photos["china"], normalize=True, **{key: cfg[key] for key in keys})
    np.testing.assert_array_equal(Preprocess.from_row(cfg)(CHINA)[0], expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_size": 0}, "input_size=0, expected a positive integer"),
        ({"input_size": (3, 224, 224)}, r"input_size=\(3, 224, 224\), expected"),
        ({"mean": (0.5, 0.5)}, "expected 3 values each"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"mean": (float("nan"),) * 3}, "all finite"),
        ({"interpolation": "random"}, "interpolation='random', expected one of nearest, bilinear, bicubic"),
        ({"crop_pct": 0.0}, "crop_pct=0.0, expected a positive fraction"),
        ({"crop_mode": "middle"}, "crop_mode='middle', expected one of center, border, squash"),
        ({"crop_mode": "middle", "interpolation": "best"}, "(?s)'best'.*'middle'"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**{"input_size": 224, **IMAGENET, **wrong})


def encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def test_files_that_are_no_images(preprocess, tmp_path, photos):
    text, empty, cut = tmp_path / "notes.txt", tmp_path / "empty.jpg", tmp_path / "cut.jpg"
    text.write_text("not an image")
    empty.touch()
    cut.write_bytes(CHINA.read_bytes()[:20_000])
    missing = tmp_path / "missing.jpg"
    expected = {
        text: "not an image, expected a file that Pillow reads",
        empty: "not an image",
        cut: "truncated, damaged or unsupported",
        missing: "no such file",
        tmp_path: "a folder, expected an image file",
    }
    for path, message in expected.items():
        with pytest.raises(ImageError, match=message) as caught:
            preprocess(path)
        assert str(path) in str(caught.value)

    with pytest.raises(ImageError) as caught:  # all of them at once, and only them
        preprocess([CHINA, *expected, np.zeros((8, 8, 5), np.uint8)])
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert all(f"image {number + 1} of 7: {path}" in line for number, (path, line) in enumerate(zip(expected, lines)))
    assert "image 6 of 7: array of shape (8, 8, 5)" in lines[-1]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # its notes on damaged TIFF tags
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_give_an_image_error_or_an_image(preprocess, photos, form):
    """Whatever Pillow raises on a damaged file, users see one kind of error."""
    good = encoded(photos["china"].resize((64, 48)), form)
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(40):
        damaged = bytearray(good[: rng.integers(1, len(good))])
        for position in rng.integers(0, len(damaged), 4):
            damaged[position] = rng.integers(256)
        try:
            preprocess(bytes(damaged))
        except ImageError as error:
            assert f"{len(damaged)} bytes" in str(error)
            failed += 1
    assert failed > 10


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 32, 32), np.uint8), r"shape \(3, 32, 32\): .* transpose channels-first"),
        (np.zeros((32, 32, 2), np.uint8), r"shape \(32, 32, 2\): expected .* 1, 3 or 4 channels"),
        (np.zeros((0, 32, 3), np.uint8), r"shape \(0, 32, 3\)"),
        (np.zeros(32, np.uint8), r"shape \(32,\)"),
        (np.zeros((2, 2, 32, 32, 3), np.uint8), r"shape \(2, 2, 32, 32, 3\)"),
        (np.zeros((32, 32, 3), np.int64), "int64, expected uint8"),
        (np.zeros((32, 32, 3), np.uint16), "uint16, expected uint8"),
        (np.full((32, 32), "a.jpg"), "expected uint8"),
        (np.where(np.arange(12).reshape(2, 2, 3) < 5, np.nan, 0.5), "5 of 12 values are not finite"),
        (np.full((2, 2, 3), np.inf), "12 of 12 values are not finite"),
        (np.full((2, 2, 3), 200.0), r"floats from 200 to 200, expected \[0, 1\]; give 0 to 255 as uint8"),
        (np.full((2, 2, 3), -0.5, np.float32), r"floats from -0.5 to -0.5, expected \[0, 1\]"),
        ([], "no images: expected at least one"),
        (np.zeros((0, 32, 32, 3), np.uint8), "no images"),
        (b"", "0 bytes: not an image"),
        (7, "int is not an image: expected a path, bytes, a PIL image or an array"),
        (None, "NoneType is not an image"),
        ([[CHINA]], "list is not an image"),
        ("nul\0byte.jpg", "damaged or unsupported"),
    ],
)
def test_input_that_is_no_image(preprocess, image, message):
    with pytest.raises(ImageError, match=message):
        preprocess(image)


def test_a_sliver_does_not_exhaust_the_memory(preprocess):
    sliver = np.zeros((1, 1_000_000), np.uint8)
    with pytest.raises(ImageError, match=r"1x1000000 .* would be resized to 36x36000000 before the crop to 32x32"):
        preprocess(sliver)
    assert Preprocess(32, **IMAGENET, crop_mode="border")(sliver).shape == (1, 32, 32, 3)


def test_a_closed_picture_is_an_image_error(preprocess, tmp_path):
    with Image.open(CHINA) as picture:
        pass
    with pytest.raises(ImageError, match=r"china\.jpg"):
        preprocess(picture)


def test_labels_are_imagenets():
    names = imagenet_labels()
    assert list(names) == ImageNetInfo("imagenet-1k").label_descriptions()
    assert names[0] == "tench, Tinca tinca" and names[281] == "tabby, tabby cat" and len(names) == 1000
    assert imagenet_labels() is names
    assert labels_for(1000) is names
    assert labels_for(21841) is None and labels_for(0) is None


def test_importing_the_package_loads_no_pillow():
    code = "import sys, flaim.data; assert not {'PIL', 'jax', 'torch'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
