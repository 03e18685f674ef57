"""`.npz` files of google-research against timm, which reads them."""

from functools import partial

import jax
import numpy as np
import pytest

from flaim.weights import CheckpointError, formats, get_model, model_of
from flaim.weights.assign import assign
from flaim.weights.converters import big_vision
from tests import oracle
from tests.parity import assert_same_output

import timm  # isort: skip -- after `oracle`, which makes torchvision importable

_DIM, _HEADS, _DEPTH, _PATCH, _HIDDEN, _CLASSES = 32, 4, 2, 8, 72, 5
_TIMM = dict(embed_dim=_DIM, depth=_DEPTH, num_heads=_HEADS, mlp_ratio=_HIDDEN / _DIM, patch_size=_PATCH)


def attention(name: str) -> dict[str, tuple[int, ...]]:
    split, width = (_HEADS, _DIM // _HEADS), _DIM
    parts = {
        f"{name}/{part}/{leaf}": shape
        for part in ("query", "key", "value")
        for leaf, shape in (("kernel", (width, *split)), ("bias", split))
    }
    return {**parts, f"{name}/out/kernel": (*split, width), f"{name}/out/bias": (width,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}/scale": (_DIM,), f"{name}/bias": (_DIM,)}


def mlp(name: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}/Dense_0/kernel": (_DIM, _HIDDEN),
        f"{name}/Dense_0/bias": (_HIDDEN,),
        f"{name}/Dense_1/kernel": (_HIDDEN, _DIM),
        f"{name}/Dense_1/bias": (_DIM,),
    }


def checkpoint(
    *, prefix="", numbers=(1, 2, 3), stacked=False, cls=True, positions=17, pool=False, classes=_CLASSES, pre=0
):
    """A random file: `numbers` are those of attention, second norm and MLP in a block."""
    at, second, mlps = numbers
    shapes = {
        "embedding/kernel": (_PATCH, _PATCH, 3, _DIM),
        "embedding/bias": (_DIM,),
        **norm("Transformer/encoder_norm"),
    }
    block = attention(f"MultiHeadDotProductAttention_{at}") | mlp(f"MlpBlock_{mlps}")
    block |= norm("LayerNorm_0") | norm(f"LayerNorm_{second}")
    for name, shape in block.items():
        if stacked:
            shapes[f"Transformer/encoderblock/{name}"] = (_DEPTH, *shape)
        else:
            shapes |= {f"Transformer/encoderblock_{i}/{name}": shape for i in range(_DEPTH)}
    if positions:
        shapes["pos_embedding" if prefix.startswith("params") else "Transformer/posembed_input/pos_embedding"] = (
            1,
            positions,
            _DIM,
        )
    if cls:
        shapes["cls"] = (1, 1, _DIM)
    if pool:
        shapes |= {"MAPHead_0/probe": (1, 1, _DIM), **attention("MAPHead_0/MultiHeadDotProductAttention_0")}
        shapes |= mlp("MAPHead_0/MlpBlock_0") | norm("MAPHead_0/LayerNorm_0")
    if pre:
        shapes |= {"pre_logits/kernel": (_DIM, pre), "pre_logits/bias": (pre,)}
    if classes:
        shapes |= {"head/kernel": (pre or _DIM, classes), "head/bias": (classes,)}
    rng = np.random.default_rng(0)
    scale = {"kernel": 0.2, "scale": 0.3}
    return {
        prefix + name: ("scale" in name)
        + np.float32(scale.get(name.rpartition("/")[2], 0.2)) * rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


# The file's options, timm's. big_vision numbers the parts of a block otherwise than the older project.
_NEW = (0, 1, 0)
FILES = {
    "augreg": (dict(), dict(class_token=True)),
    "augreg-headless": (dict(prefix="opt/target/", classes=0), dict(num_classes=0)),
    "big_vision-gap": (
        dict(prefix="params/", numbers=_NEW, cls=False, positions=16),
        dict(class_token=False, global_pool="avg", fc_norm=False),
    ),
    "big_vision-token": (
        dict(prefix="params/", numbers=_NEW, positions=16),
        dict(class_token=True, no_embed_class=True),
    ),
    "big_vision-map": (
        dict(prefix="params/img/", numbers=_NEW, cls=False, positions=16, pool=True, stacked=True, classes=0),
        dict(class_token=False, global_pool="map", num_classes=0),
    ),
}


# Depths of the ResNet's stages, the side of the patches of its map.
HYBRIDS = {"stem": ((), 2), "resnet": ((2, 1), 1)}
_WIDTH = 32


def backbone(depths) -> dict[str, np.ndarray]:
    """A hybrid's ResNet: random tensors, the norms' with four axes, as in the older files."""
    convs = {"conv_root": (7, 3, _WIDTH, "gn_root")}
    features = _WIDTH
    for i, depth in enumerate(depths):
        out = 4 * _WIDTH * 2**i
        for j in range(depth):
            unit = f"block{i + 1}/unit{j + 1}"
            inner = ((1, features, out // 4), (3, out // 4, out // 4), (1, out // 4, out))
            convs |= {f"{unit}/conv{k}": (*shape, f"{unit}/gn{k}") for k, shape in enumerate(inner, 1)}
            if j == 0:
                convs[f"{unit}/conv_proj"] = 1, features, out, f"{unit}/gn_proj"
            features = out
    rng, tensors = np.random.default_rng(1), {}
    for name, (side, channels, out, norm_name) in convs.items():
        tensors[f"{name}/kernel"] = rng.standard_normal((side, side, channels, out), np.float32)
        tensors[f"{norm_name}/scale"] = 1 + np.float32(0.3) * rng.standard_normal((1, 1, 1, out), np.float32)
        tensors[f"{norm_name}/bias"] = np.float32(0.2) * rng.standard_normal((1, 1, 1, out), np.float32)
    return tensors


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids_are_those_of_timm(name, tmp_path):
    depths, patch = HYBRIDS[name]
    stride, features = (8, 8 * _WIDTH) if depths else (4, _WIDTH)
    tensors = checkpoint() | backbone(depths)
    kernel = np.random.default_rng(2).standard_normal((patch, patch, features, _DIM), np.float32)
    tensors["embedding/kernel"] = kernel / np.float32(features**0.5)
    np.savez(tmp_path / "model.npz", **tensors)

    standardised = dict(preact=False, stem_type="same", conv_layer=partial(timm.layers.StdConv2dSame, eps=1e-8))
    resnet = (
        timm.models.ResNetV2(
            depths, channels=(128, 256), num_classes=0, global_pool="", stem_chs=_WIDTH, **standardised
        )
        if depths
        else timm.models.resnetv2.create_resnetv2_stem(3, _WIDTH, **standardised)
    )
    size = 4 * patch * stride
    reference = timm.models.VisionTransformer(
        **{**_TIMM, "patch_size": patch, "img_size": size, "num_classes": _CLASSES},
        embed_layer=partial(timm.layers.HybridEmbed, backbone=resnet),
    )
    oracle.randomise(reference.eval(), seed=1).load_pretrained(str(tmp_path / "model.npz"))

    model, variables = load(formats.read(tmp_path / "model.npz"))
    assert model.input_size == (size, size)
    assert_same_output(model, variables, reference)


def test_the_published_hybrids_are_found():
    """By the depths of their ResNets; their widths here are others."""
    wide = {"r26_s32": (2, 2, 2, 2), "r50_s16": (3, 4, 9), "r50_s32": (3, 4, 6, 3)}
    for name, depths in wide.items():
        tensors = checkpoint() | backbone(depths)
        tensors["embedding/kernel"] = np.ones((1, 1, 4 * _WIDTH * 2 ** (len(depths) - 1), _DIM), np.float32)
        info = big_vision.describe(tensors, {}, "the file")
        assert info.overrides["embed"]["backbone"]["depths"] == [*depths], name
        assert info.input_size == (4 * int(name[-2:]),) * 2


def load(tensors, **changes):
    assert big_vision.recognises(tensors, {})
    config = big_vision.describe(tensors, {}, "the file").replace(converter="big_vision")
    model = model_of(config, overrides=changes)
    return model, assign(model, tensors, config, key=jax.random.key(0))


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_those_of_timm(name, tmp_path):
    options, arguments = FILES[name]
    tensors = checkpoint(**options)
    if name == "big_vision-map":  # the other tower
        tensors |= {"params/txt/head/bias": np.ones(3, np.float32), "params/t": np.ones(1, np.float32)}
    np.savez(tmp_path / "model.npz", **tensors)
    reference = timm.create_model(
        "vit_base_patch16_224", **{"num_classes": _CLASSES, **_TIMM, "img_size": 32, **arguments}
    )
    oracle.randomise(reference.eval(), seed=1).load_pretrained(str(tmp_path / "model.npz"))

    model, variables = load(formats.read(tmp_path / "model.npz"))
    images = oracle.image(32)
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)
    error = oracle.relative_error(found, oracle.run(reference, images))
    print(f"{name}: {error:.1e}")
    assert error <= 1e-5, f"{name}: relative error {error:.2e}"


def test_bfloat16_and_compression(tmp_path):
    """Of a stack of blocks, which is read once for each."""
    tensors = checkpoint(stacked=True)
    halves = {name: value.astype(jax.numpy.bfloat16) for name, value in tensors.items()}
    np.savez_compressed(tmp_path / "model.npz", **halves)
    config, variables, norm_stats = get_model(tmp_path / "model.npz")
    _, expected = load({name: value.astype(np.float32) for name, value in halves.items()})
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a, np.float32), b), variables, expected)
    assert config.n_classes == _CLASSES
    assert norm_stats["mean"] == (0.5,) * 3


def test_representation_layer():
    """A linear layer with a tanh before the head, which timm has given up."""
    tensors = checkpoint(pre=12)
    model, variables = load(tensors)
    images = oracle.image(32)
    logits = model.apply(variables, images).value
    plain, others = load(
        {name: value for name, value in tensors.items() if not name.startswith(("pre_logits/", "head/"))}
    )
    pooled = np.asarray(plain.apply(others, images).value)
    hidden = np.tanh(pooled @ tensors["pre_logits/kernel"] + tensors["pre_logits/bias"])
    expected = hidden @ tensors["head/kernel"] + tensors["head/bias"]
    assert oracle.relative_error(logits, expected) <= 1e-5


def test_positions_that_are_not_learned():
    """Sines, as the authors compute them: columns, then rows; the lowest frequency is 1 / 10000."""
    tensors = checkpoint(prefix="params/", numbers=_NEW, cls=False, positions=0)
    model, variables = load(tensors)
    assert model.input_size == (224, 224)
    found = np.asarray(variables["params"]["pos_embed"]).reshape(28, 28, 4, _DIM // 4)
    lowest, row, column = 1e-4, 3, 5
    expected = np.array([f(p * o) for p in (column, row) for f in (np.sin, np.cos) for o in (1, lowest)]).reshape(4, 2)
    np.testing.assert_allclose(found[row, column][:, [0, -1]], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"MixerBlock_0/LayerNorm_0/bias": t["cls"]}, "the file holds an MLP-Mixer"),
        (lambda t: t | {"embedding/kernel": np.ones((192, _DIM))}, r"patch embedding has shape \(192, 32\)"),
        (lambda t: {n: v for n, v in t.items() if n != "embedding/kernel"}, "without patch_embed/proj/kernel"),
        (
            lambda t: t | {"Transformer/posembed_input/pos_embedding": np.ones((1, 19, _DIM))},
            "has 19 position embeddings",
        ),
        (lambda t: t | {"surplus": t["cls"]}, r"params/surplus: unexpected, shape \(1, 1, 32\)"),
        (
            lambda t: {n: v for n, v in t.items() if "_1/MlpBlock_3/Dense_1/bias" not in n},
            "params/blocks/1/mlp/fc2/bias: missing",
        ),
        (lambda t: {n: v for n, v in t.items() if "_1/query/bias" not in n}, "params/blocks/1/attn/qkv/bias: missing"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(CheckpointError, match=message):
        load(change(checkpoint()))
