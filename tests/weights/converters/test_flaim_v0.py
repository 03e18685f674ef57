"""The original flaim's checkpoints against its own outputs, which `make_original.py` recorded."""

import json
import pickle

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from flaim.weights import CheckpointError, CheckpointInfo, Preprocessing, get_model, model_of
from flaim.weights.assign import assign
from flaim.weights.converters import flaim_v0
from tests import oracle
from tests.weights.converters.make_flaim_v0 import FILE, image, numbers

RECORDED = json.loads(FILE.read_text())

_VIT = dict(dim=32, depth=1, num_heads=2)
_CONVNEXT = dict(depths=(1, 1), dims=(8, 16))
_AVERAGE = {"function": "average_pool"}


def _stack(block: str, depth: int, features: int, stride: int, **options) -> list[dict]:
    first = {"stride": stride}
    options = {"kernel_size": 3, **options}
    pairs = dict(options=list(options.items()), first=list(first.items()))
    return [dict(function="Stack", block={"function": block}, depth=depth, features=features, **pairs)]


# The recorded models as variants of flaim's.
MODELS = {
    "vit": ("vit", "vit_base_patch16_224", dict(_VIT, layer_scale_init=0.1, embed_prefix=False)),
    "vit_clip": ("vit", "vit_base_patch16_clip_224", _VIT),
    "vit_pool": ("vit", "vit_base_patch16_224", dict(_VIT, pool=_AVERAGE)),
    "convnext": ("convnext", "convnext_tiny", dict(_CONVNEXT, head_hidden=12)),
    "convnextv2": ("convnext", "convnextv2_atto", _CONVNEXT),
    "swin": (
        "swin",
        "swin_tiny_patch4_window7_224",
        dict(dim=16, depths=(2, 1), num_heads=(2, 4), window=4),
    ),
    "efficientnetv2": (
        "efficientnet",
        "tf_efficientnetv2_s",
        dict(
            stem_features=8,
            stages=[
                _stack("conv_norm_act", 1, 8, 1, residual=True),
                _stack("fused_mbconv", 1, 16, 2, expand_ratio=4),
                _stack("mbconv", 2, 24, 2, expand_ratio=4, se_ratio=0.25),
            ],
        ),
    ),
    "maxvit": ("maxvit", "maxvit_tiny_tf_224", dict(depths=(1, 1), dims=(32, 64), stem_dims=(16, 16), head_hidden=64)),
    "resnet": ("resnet", "resnet50", dict(depths=(1, 1))),
    "resnet_basic": ("resnet", "resnet18", dict(depths=(1, 1))),
    "resnet_se": ("resnet", "seresnet152d", dict(depths=(1, 1))),
    "resnet_rs": (
        "resnet",
        "ecaresnet50d",
        dict(depths=(1, 1), stem_pool={"function": "convolution"}, average_shortcut=False),
    ),
}


def tensors_of(name: str) -> dict[str, np.ndarray]:
    """The recorded model's variables, and what it kept beside them, as its pickle has them."""
    return {path: numbers(path, tuple(shape)) for path, shape in RECORDED[name]["shapes"].items()}


def shapes_of(name: str, n_classes: int = 5, **others: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays without numbers, some of other shapes; `n_classes` replaces that of the recorded model."""
    shapes = {path: tuple(shape) for path, shape in RECORDED[name]["shapes"].items()}
    heads = {path: (*shape[:-1], n_classes) for path, shape in shapes.items() if "Head_0/Dense_0" in path}
    shapes |= heads | {path: shape for path in shapes for end, shape in others.items() if path.endswith(end)}
    return {path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_original(name):
    family, architecture, overrides = MODELS[name]
    size, expected = RECORDED[name]["size"], RECORDED[name]["output"]
    config = CheckpointInfo(
        family=family,
        architecture=architecture,
        overrides=overrides,
        n_classes=5,
        preprocessing=Preprocessing(input_size=(size, size)),
        converter="flaim_v0",
    )
    tensors = tensors_of(name)
    assert flaim_v0.recognises(tensors, {})
    model = model_of(config)
    variables = assign(model, tensors, config, key=jax.random.key(0))
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, image(size))
    error = oracle.relative_error(found, [expected])
    print(f"{name}: {error:.1e}")
    assert error <= 1e-5, f"{name}: relative error {error:.2e}"


def test_a_published_model_is_told_by_its_shapes():
    config = flaim_v0.describe(shapes_of("resnet10t", n_classes=37), {}, "somewhere/mine.pickle")
    assert (config.model, config.architecture, config.n_classes) == ("resnet10t", "resnet10t", 37)
    assert config.input_size == (176, 176)


def test_a_file(tmp_path):
    tensors = tensors_of("resnet10t")
    nested = unflatten_dict({tuple(path.split("/")): value for path, value in tensors.items()})
    (tmp_path / "mine.pickle").write_bytes(pickle.dumps(nested))
    model, variables, _ = get_model(tmp_path / "mine.pickle")
    assert (model.name, model.n_classes) == ("resnet10t", 5)
    np.testing.assert_array_equal(variables["params"]["fc"]["kernel"], tensors["params/Head_0/Dense_0/kernel"])


def test_parameters_are_told_by_the_files_name():
    for name in ("vit_tiny_patch16_224", "vit_tiny_patch16_224_in22k"):
        config = flaim_v0.describe(shapes_of("vit_tiny_patch16"), {}, f"folder/{name}.pickle")
        assert (config.model, config.flaim_repo) == ("vit_tiny_patch16", f"BobMcDear/{name}")


def test_another_image_size():
    config = flaim_v0.describe(shapes_of("vit_tiny_patch16", pos_embed=(1 + 20**2, 192)), {}, "mine.pickle")
    assert config.architecture.startswith("vit_tiny_patch16_")
    assert config.input_size == (320, 320)


def test_what_is_none_of_the_published_models_is_refused():
    with pytest.raises(
        CheckpointError, match=r"mine\.pickle holds a resnet of the original flaim's that has the shapes of"
    ):
        flaim_v0.describe(tensors_of("resnet"), {}, "mine.pickle")
    with pytest.raises(CheckpointError, match="that this one does not have, of CaiTBlock, PatchEmbed"):
        tensors = {"params/PatchEmbed_0/x": np.ones(1), "params/CaiTBlock_3/y": np.ones(1)}
        flaim_v0.describe(tensors, {}, "mine.pickle")


def test_unknown_names_stay_as_they_are():
    """So that placement lists them."""
    row = flaim_v0.describe(shapes_of("resnet10t"), {}, "mine")
    found = flaim_v0.translate(shapes_of("resnet10t") | {"params/Surplus_0/kernel": np.ones(1)}, row, {})
    assert "params/Surplus_0/kernel" in found
    assert len(found) == len(RECORDED["resnet10t"]["shapes"]) + 1


def test_what_does_not_fit_is_listed():
    tensors = shapes_of("resnet10t") | {"params/Surplus_0/kernel": np.ones(1)}
    del tensors["params/Head_0/Dense_0/bias"]
    tensors["params/Head_0/Dense_0/kernel"] = np.ones((7, 5))
    config = flaim_v0.describe(shapes_of("resnet10t"), {}, "mine.pickle").replace(converter="flaim_v0")
    with pytest.raises(CheckpointError) as raised:
        assign(model_of(config), tensors, config, key=jax.random.key(0), where="mine.pickle")
    first, *problems = str(raised.value).splitlines()
    assert first == "mine.pickle does not fit resnet10t:"
    assert sorted(problems) == [
        "  params/Surplus_0/kernel: unexpected, shape (1,)",
        "  params/fc/bias: missing, expected shape (5,)",
        "  params/fc/kernel: found shape (7, 5), expected (512, 5)",
    ]
