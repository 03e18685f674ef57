"""transformers' models: its own classes, tiny, every parameter and buffer random, saved by it and loaded by flaim."""

import json
import math
import re

import flax.serialization
import jax
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim.adapters import nnx
from flaim.data import Preprocess
from flaim.models import create
from flaim.options import options_from, overrides_of
from flaim.weights import CheckpointError, formats, get_model, model_of, resolve
from flaim.weights.assign import assign
from flaim.weights.converters import transformers
from tests import oracle
from tests.weights.converters.hf_models import (
    LABELS,
    MEANS,
    MODELS,
    TOWERS,
    VIT,
    assert_same,
    build,
    load,
    logits,
    pooled,
    read,
)

import transformers as hf  # isort: skip -- after `oracle`, which makes torchvision importable


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_transformers(name, tmp_path):
    _, options, pick, n_classes = MODELS[name]
    reference = build(name)
    reference.save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    assert transformers.recognises(tensors, {})
    config, model, variables = load(tensors, files, n_classes)
    assert config.labels == (tuple(LABELS["id2label"].values()) if "id2label" in options else None)
    assert_same(model, variables, reference, pick)
    assert (
        create(model.name, model.n_classes, model.input_size, **options_from(overrides_of(model), config.family))
        == model
    )


@pytest.mark.parametrize("form", ["safetensors", "sharded", "flax", "torch"])
def test_folders(form, tmp_path):
    """By way of `get_model`, of every form that transformers has saved its models in."""
    reference = build("resnet-bottleneck")
    reference.save_pretrained(tmp_path, **({"max_shard_size": "5KB"} if form == "sharded" else {}))
    processor = dict(size={"shortest_edge": 40}, crop_pct=0.8, image_mean=[0.1] * 3, image_std=[0.2] * 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    if form in ("flax", "torch"):
        state = read(tmp_path)[0]
        (tmp_path / "model.safetensors").unlink()
        if form == "flax":
            (tmp_path / "flax_model.msgpack").write_bytes(to_flax(state, nested=True))
        else:
            torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    model, variables, norm_stats = get_model(tmp_path)
    assert model.input_size == (40, 40)
    assert norm_stats == {"mean": (0.1,) * 3, "std": (0.2,) * 3}
    with torch.no_grad():
        expected = logits(reference(oracle.to_torch(oracle.image(40))))
    assert oracle.relative_error(model.apply(variables, oracle.image(40)).value, expected) <= 1e-5


def test_a_fine_tuned_model_of_the_hub_in_nnx(uploads, tmp_path):
    """Sizes, classes, their names and the preprocessing come from the repository's own files."""
    reference = build("vit")
    reference.save_pretrained(tmp_path / "repository")
    hf.ViTImageProcessorPil(**MEANS, size=32).save_pretrained(tmp_path / "repository")
    uploads.add("org/my-finetuned-vit", tmp_path / "repository")

    model, norm_stats = nnx.get_model("hf:org/my-finetuned-vit", pretrained=True)
    with torch.no_grad():
        expected = logits(reference(oracle.to_torch(oracle.image(32))))
    assert oracle.relative_error(model(jax.numpy.asarray(oracle.image(32))), expected) <= 1e-5
    assert norm_stats == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    config = resolve("hf:org/my-finetuned-vit")
    assert (config.n_classes, config.labels) == (5, tuple(LABELS["id2label"].values()))
    assert config.preprocessing["interpolation"] == "bilinear"


def test_a_file_without_a_configuration(tmp_path):
    """It does not say how many heads there are, so that the model has to be named."""
    reference = oracle.randomise(hf.ViTForImageClassification(hf.ViTConfig(**VIT, layer_norm_eps=1e-6)).eval())
    reference.save_pretrained(tmp_path)
    file = (tmp_path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    with pytest.raises(CheckpointError, match=r"name the model, get_model\(name, pretrained="):
        get_model(file)
    sizes = dict(dim=32, depth=2, num_heads=4, patch_size=8, mlp_ratio=72 / 32)
    model, variables, _ = get_model("vit_tiny_patch16_224", file, input_size=32, **sizes)
    assert model.n_classes == 2
    assert_same(model, variables, reference, logits)


def test_the_image_processor_of_a_greater_one(tmp_path):
    """transformers 5 keeps those of CLIP in a `processor_config.json`."""
    build("clip-classifier").save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {**MEANS, "size": 40}}))
    assert get_model(tmp_path)[2] == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"classifier.bias": None}, ["head.bias: missing, expected shape (5,)"]),
        ({"vit.surplus": (3, 4)}, ["surplus: unexpected, shape (3, 4)"]),
        (
            {"vit.layernorm.weight": (33,), "classifier.weight": (5, 33)},
            ["norm.weight: found shape (33,), expected (32,)", "head.weight: found shape (5, 33), expected (5, 32)"],
        ),
        (
            {"vit.encoder.layer.0.attention.attention.key.weight": (32, 33)},
            ["blocks.0.attn.qkv.weight: missing", "blocks.0.attn.k.weight: unexpected, shape (32, 33)"],
        ),
    ],
)
def test_what_does_not_fit_is_listed(changes, messages, tmp_path):
    build("vit").save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    tensors |= {name: np.zeros(shape or 0, np.float32) for name, shape in changes.items()}
    with pytest.raises(CheckpointError) as raised:
        load({name: value for name, value in tensors.items() if changes.get(name, ()) is not None}, files)
    assert [message for message in messages if message not in str(raised.value)] == []


@pytest.mark.parametrize("name", ["clip-projection", "siglip-tower"])
def test_a_tower_of_a_whole_model(name, tmp_path):
    kind, *_ = name.split("-")
    whole = {"clip": hf.CLIPModel, "siglip": hf.SiglipModel}[kind]
    reference = oracle.randomise(whole(whole.config_class(**TOWERS)).eval())
    reference.save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    assert any(name.startswith("text_model.") for name in tensors)
    _, model, variables = load(tensors, files)
    assert_same(model, variables, reference.get_image_features, pooled)


def test_names_of_version_5():
    """Those that modules have within transformers 5, which still saves under the older ones."""
    for name in ("dinov2-swiglu", "swin", "beit-shared", "dinov3_vit-gated", "dinov3_convnext"):
        _, _, pick, n_classes = MODELS[name]
        reference = build(name)
        files = {"config.json": json.loads(reference.config.to_json_string(use_diff=False))}
        _, model, variables = load(oracle.state(reference), files, n_classes)
        assert_same(model, variables, reference, pick)


def test_a_model_that_predicts_masked_patches(tmp_path):
    """What its last layer takes: the tokens after a norm that the classifiers have elsewhere."""
    options = dict(VIT, use_shared_relative_position_bias=True, use_mask_token=True, vocab_size=8)
    reference = oracle.randomise(hf.BeitForMaskedImageModeling(hf.BeitConfig(**options)).eval())
    reference.save_pretrained(tmp_path)
    _, model, variables = load(*read(tmp_path), n_classes=0)
    reference.lm_head = torch.nn.Identity()
    with torch.no_grad():
        expected = logits(reference(oracle.to_torch(oracle.image(32))))
    assert oracle.relative_error(model.apply(variables, oracle.image(32)).value[:, 1:], expected) <= 1e-5


def test_another_size_and_other_classes(tmp_path):
    build("vit").save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    config = transformers.describe(tensors, files, "the folder").replace(converter="transformers")
    model = model_of(config, 7, 64)
    variables = assign(model, tensors, config, key=jax.random.key(0))
    assert model.apply(variables, oracle.image(64)).value.shape == (2, 7)
    leaves = core.flatten(model.spec())
    named = transformers.translate(tensors, config, leaves)["params/blocks/0/attn/qkv/kernel"]
    np.testing.assert_array_equal(variables["params"]["blocks"]["0"]["attn"]["qkv"]["kernel"], named.T)


def test_without_the_pooler(tmp_path):
    """What a fine-tuned classifier is put on, as in transformers."""
    reference = build("vit-pooler")
    reference.save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    config = transformers.describe(tensors, files, "the folder").replace(converter="transformers")
    model = model_of(config, overrides={"pooler": None})
    variables = assign(model, tensors, config, key=jax.random.key(0))
    assert_same(model, variables, reference, lambda output: output.last_hidden_state[:, 0])


# Flax: what transformers 4 wrote, from the PyTorch models of today.

_FLAX_NAMES = {"running_mean": "mean", "running_var": "var"}


def to_flax(tensors: dict, nested: bool) -> bytes:
    """A `flax_model.msgpack` with these numbers; `nested` where there are statistics beside the parameters."""
    tree: dict = {}
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        *path, leaf = name.split(".")
        if leaf == "weight" and value.ndim in (2, 4):
            leaf = "embedding" if path[-1] == "position_embedding" else "kernel"
            value = value if leaf == "embedding" else value.transpose({2: (1, 0), 4: (2, 3, 1, 0)}[value.ndim])
        elif leaf == "weight":
            leaf = "scale"
        collection = "batch_stats" if leaf in _FLAX_NAMES else "params"
        path = [collection, *path] if nested else path
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[_FLAX_NAMES.get(leaf, leaf)] = np.ascontiguousarray(value)
    return flax.serialization.msgpack_serialize(tree)


@pytest.mark.parametrize("name", ["vit-pooler", "resnet-basic", "clip-projection", "dinov2", "beit"])
def test_flax(name, tmp_path):
    reference = build(name)
    reference.save_pretrained(tmp_path)
    tensors, files = read(tmp_path)
    file = tmp_path / "flax_model.msgpack"
    file.write_bytes(to_flax(tensors, nested=name.startswith("resnet")))
    tensors = formats.read(file)
    if name == "resnet-basic":  # its two layers had no names of their own in Flax
        tensors = {re.sub(r"/layer/(\d)/", r"/layer/layer_\1/", key): value for key, value in tensors.items()}
    _, model, variables = load(tensors, files)
    assert_same(model, variables, reference, MODELS[name][2])


# Configurations.


def configured(tensors: dict | None = None, processor: dict | None = None, **config):
    files = {"config.json": config} | ({"preprocessor_config.json": processor} if processor else {})
    return transformers.describe(tensors or {}, files, "there")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(model_type="bert"), "there describes a bert of transformers; flaim reads vit, deit, "),
        (dict(model_type="swin", use_absolute_embeddings=True), "use_absolute_embeddings=True"),
        (dict(model_type="swin", image_size=256), "image_size=256"),  # transformers pads the map, then shifts it
        (dict(model_type="swin", image_size=[224, 448]), r"image_size=\[224, 448\]"),  # and shifts both axes or none
        (dict(model_type="swinv2", image_size=88, window_size=6), "image_size=88"),  # and rounds 11 / 2 down
        (dict(model_type="beit", image_size=[224, 448]), r"image_size=\[224, 448\]"),
        (dict(model_type="data2vec-vision", image_size=220), "image_size=220"),
        (dict(model_type="dinov3_vit", proj_bias=False, value_bias=False), "proj_bias=False, query_bias=True"),
        (dict(model_type="dinov3_vit", query_bias=False, value_bias=False, key_bias=True), "key_bias=True"),
        (dict(model_type="pvt_v2", strides=[4, 2, 2, 1]), r"strides=\[4, 2, 2, 1\]"),
        (dict(model_type="pvt_v2", hidden_act="relu", num_encoder_blocks=3), "hidden_act='relu', num_encoder_blocks=3"),
        (dict(model_type="regnet", groups_width=32), r"hidden_sizes=.*depths=.*groups_width=32"),
        (dict(model_type="regnet", hidden_act="gelu", downsample_in_first_stage=False), "stage=False.*act='gelu'"),
        (dict(model_type="resnet", hidden_act="gelu"), "hidden_act='gelu'"),
        (dict(model_type="vit", hidden_act="mish", pruned_heads={"0": [1]}), r"pruned_heads=.*hidden_act='mish'"),
        (dict(model_type="convnext", patch_size=2), "patch_size=2"),
        (dict(model_type="efficientnet", pooling_type="max", hidden_dim=8), "pooling_type='max', hidden_dim=8"),
        (dict(model_type="mobilenet_v2", output_stride=16), "output_stride=16"),
        (dict(model_type="siglip", vision_config=dict(hidden_act="mish")), "hidden_act='mish'"),
    ],
)
def test_what_flaim_has_no_option_for_is_refused_by_name(config, message):
    with pytest.raises(CheckpointError, match=message):
        configured(**config)


LAYER_NORM = {"function": "layer_norm"}


@pytest.mark.parametrize(
    ("config", "name", "overrides"),
    [
        (dict(model_type="vit"), "vit_base_patch16_224", {"norm": {"function": "layer_norm", "eps": 1e-12}}),
        (dict(model_type="swin"), "swin_tiny_patch4_window7_224", {"drop_path_rate": 0.1}),
        (
            dict(model_type="swinv2", image_size=256, window_size=16, pretrained_window_sizes=[12, 12, 12, 6]),
            "swinv2_tiny_window16_256",
            {"drop_path_rate": 0.1, "pretrained_windows": [12, 12, 12, 6]},
        ),
        (
            dict(model_type="beit", use_relative_position_bias=True, layer_norm_eps=1e-6, image_size=384),
            "beit_base_patch16_384",
            {"drop_path_rate": 0.1},
        ),
        (dict(model_type="pvt_v2", image_size={"height": 224, "width": 224}), "pvt_v2_b0", {"embed_norm": LAYER_NORM}),
        (
            dict(model_type="dinov3_vit", num_register_tokens=4, layerscale_value=1e-5),
            "vit_small_patch16_dinov3_qkvb",
            {"pool": {"function": "class_token_pool"}},
        ),
        (dict(model_type="dinov3_convnext", depths=[3, 3, 27, 3]), "convnext_small", {}),
        (dict(model_type="regnet"), "regnety_040", {}),
        (
            dict(
                model_type="regnet",
                hidden_sizes=[2020, 4040, 11110, 28280],
                depths=[2, 7, 17, 1],
                groups_width=1010,
            ),
            "regnety_1280",
            {"w0": 1744, "wa": 620.83, "group_size": 1010},
        ),
        (dict(model_type="clip", vision_config=dict(patch_size=16)), "vit_base_patch16_clip_quickgelu_224", {}),
        (dict(model_type="siglip_vision_model"), "vit_base_patch16_siglip_224", {"act": {"function": "gelu_tanh"}}),
        (dict(model_type="resnet", depths=[3, 4, 23, 3]), "resnet101", {}),
        (
            dict(model_type="efficientnet", depthwise_padding=[18]),
            "tf_efficientnet_b7",
            {"drop_rate": 0.5, "drop_path_rate": 0.2},
        ),
    ],
)
def test_published_models_go_by_their_names(config, name, overrides):
    found = configured(**config)
    assert (found.architecture, dict(found.overrides)) == (name, overrides)


# The model's type, the image processor's class, what its file says.
PROCESSORS = [
    ("vit", "ViT", {}),
    ("vit", "ViT", dict(MEANS, size=64, resample=3, do_rescale=False)),
    ("vit", "ViT", dict(size=64, do_normalize=False)),
    ("deit", "DeiT", dict(MEANS, size=72, crop_size=64)),
    ("dinov2", "Bit", dict(MEANS, size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})),
    ("clip", "CLIP", {}),
    ("clip", "CLIP", dict(size=72, crop_size=64)),
    ("siglip", "Siglip", {}),
    ("swin", "ViT", dict(MEANS, size={"height": 64, "width": 64}, resample=3)),
    ("convnext", "ConvNext", dict(MEANS, size={"shortest_edge": 224}, crop_pct=0.9)),
    ("convnextv2", "ConvNext", dict(MEANS, size={"shortest_edge": 384}, crop_pct=0.9)),
    ("beit", "Beit", {}),
    ("beit", "Beit", dict(size=256, crop_size=224, do_center_crop=True)),
    ("data2vec-vision", "Beit", dict(MEANS, size={"height": 64, "width": 64}, resample=2)),
    ("swinv2", "ViT", dict(MEANS, size={"height": 64, "width": 64}, resample=3)),
    ("pvt_v2", "Pvt", {}),
    ("regnet", "ConvNext", dict(MEANS, size={"shortest_edge": 64}, crop_pct=0.875)),
    ("resnet", "ConvNext", dict(MEANS, size={"shortest_edge": 64}, crop_pct=0.875)),
    ("efficientnet", "EfficientNet", dict(MEANS, size={"height": 64, "width": 64}, include_top=True)),
    ("efficientnet", "EfficientNet", dict(MEANS, size=64, rescale_factor=1 / 127.5, rescale_offset=True)),
    ("mobilenet_v2", "MobileNetV2", {}),
    ("mobilenet_v2", "MobileNetV2", dict(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})),
]


@pytest.mark.parametrize(("model_type", "cls", "said"), PROCESSORS)
def test_images_are_prepared_as_transformers_prepares_them(model_type, cls, said):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    expected = getattr(hf, f"{cls}ImageProcessorPil")(**said)(image, return_tensors="np")["pixel_values"]
    expected = np.asarray(expected)[0].transpose(1, 2, 0)
    config = dict(model_type=model_type, image_size=expected.shape[0], window_size=4, depthwise_padding=[18])
    found = Preprocess.from_row(configured(processor=said, **config).preprocessing)([image])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("resized", [232, 235, 236, 248, 256, 292])
def test_crops_are_of_the_size_that_transformers_resizes_to(resized):
    processor = dict(size={"shortest_edge": resized}, do_center_crop=True, crop_size=224)
    found = configured(model_type="resnet", processor=processor).preprocessing
    assert math.floor(224 / found["crop_pct"]) == resized


def test_a_vits_size_is_that_of_its_position_embeddings():
    config = configured(model_type="dinov2", image_size=518, processor=dict(size=256, crop_size=224))
    assert config.input_size == (518, 518)
