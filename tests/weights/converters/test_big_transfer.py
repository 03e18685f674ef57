"""BiT's `.npz` files of google-research/big_transfer against timm, which reads them."""

from functools import partial

import numpy as np
import pytest

from flaim import models
from flaim.weights import CheckpointError, get_model
from flaim.weights.converters import big_transfer
from tests import oracle
from tests.oracle import timm
from tests.parity import assert_same_output

_DEPTHS, _STEM, _WIDTHS, _CLASSES = (2, 1), 32, (128, 256), 5


def shapes(depths=_DEPTHS, stem=_STEM, widths=_WIDTHS, classes=_CLASSES) -> dict[str, tuple[int, ...]]:
    """A file's names and shapes."""
    convs, norms, features = {"root_block": (7, 7, 3, stem)}, {"": widths[-1]}, stem
    for i, (depth, out) in enumerate(zip(depths, widths), 1):
        for j in range(1, depth + 1):
            unit, inner = f"block{i}/unit{j:02d}", out // 4
            convs[f"{unit}/a"], convs[f"{unit}/b"] = (1, 1, features, inner), (3, 3, inner, inner)
            convs[f"{unit}/c"] = 1, 1, inner, out
            norms |= {f"{unit}/a/": features, f"{unit}/b/": inner, f"{unit}/c/": inner}
            if j == 1:
                convs[f"{unit}/a/proj"] = 1, 1, features, out
            features = out
    found = {f"resnet/{name}/standardized_conv2d/kernel": shape for name, shape in convs.items()}
    for name, width in norms.items():
        found |= {f"resnet/{name}group_norm/{leaf}": (width,) for leaf in ("gamma", "beta")}
    if classes:
        found |= {"resnet/head/conv2d/kernel": (1, 1, features, classes), "resnet/head/conv2d/bias": (classes,)}
    return found


def checkpoint(**options) -> dict[str, np.ndarray]:
    """A random file."""
    rng = np.random.default_rng(0)
    return {
        name: np.float32(0.2) * rng.standard_normal(shape, np.float32) + np.float32(name.endswith("gamma"))
        for name, shape in shapes(**options).items()
    }


def test_outputs_are_those_of_timm(tmp_path):
    np.savez(tmp_path / "model.npz", **checkpoint())
    standardised = dict(stem_type="fixed", conv_layer=partial(timm.layers.StdConv2d, eps=1e-8))
    reference = timm.models.ResNetV2(_DEPTHS, _WIDTHS, _CLASSES, stem_chs=_STEM, **standardised)
    oracle.randomise(reference.eval(), seed=1).load_pretrained(str(tmp_path / "model.npz"))
    model, variables, norm_stats = get_model(tmp_path / "model.npz", input_size=(40, 64))
    assert model.n_classes == _CLASSES
    assert norm_stats["mean"] == (0.5,) * 3
    assert_same_output(model, variables, reference)


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "resnetv2_101x3_bit", "resnetv2_152x4_bit"])
def test_published_models_are_found(name):
    model = models.create(name)
    options = dict(model.config)
    depths, widths, (stem,) = options["depths"], options["widths"], options["stem_widths"]
    tensors = {
        name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes(depths, stem, widths, classes=0).items()
    }
    assert big_transfer.recognises(tensors, {})
    info = big_transfer.describe(tensors, {}, "the file")
    assert (info.architecture, info.overrides, info.n_classes) == (name, {}, -1)
    assert info.input_size == model.input_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {n: v for n, v in t.items() if "/block" not in n}, "without the first block of one of its stages"),
        (lambda t: {n: v for n, v in t.items() if "block1/unit01" not in n}, "without the first block"),
        (
            lambda t: {n: v for n, v in t.items() if "unit02/b/group_norm/gamma" not in n},
            "params/stages/0/blocks/1/norm2/scale: missing",
        ),
        (lambda t: t | {"resnet/surplus": np.ones(3, np.float32)}, "params/resnet/surplus: unexpected"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    np.savez(tmp_path / "model.npz", **change(checkpoint()))
    with pytest.raises(CheckpointError, match=message):
        get_model(tmp_path / "model.npz")
