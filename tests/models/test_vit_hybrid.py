"""Hybrid Vision Transformers against timm's: each convolutional network before a narrow transformer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim_core as core
from flaim import models, registry
from flaim.models.vit import _hybrid
from flaim.weights import CheckpointInfo, Preprocessing
from flaim.weights.assign import assign
from flaim.weights.converters.timm import renamed
from tests import oracle
from tests.oracle import relative_error, timm
from tests.parity import assert_gradient_parity, assert_parity, variables_from

hybrid = timm.models.vision_transformer_hybrid
standardised = dict(
    preact=False, stem_type="same", conv_layer=partial(timm.layers.StdConv2dSame, eps=1e-8), stem_chs=32
)
NARROW = dict(embed_dim=48, depth=1, num_heads=3)

# Ours, timm's.
BACKBONES = {
    "vit_tiny_r_s16_p8_224": (
        {"backbone": partial(_hybrid.standardised_stem, width=32)},
        lambda: timm.models.resnetv2.create_resnetv2_stem(
            3, 32, **{name: value for name, value in standardised.items() if name != "stem_chs"}
        ),
    ),
    "vit_small_r26_s32_224": (
        {"backbone": partial(_hybrid.standardised_resnet, depths=(2, 1), width=32)},
        lambda: timm.models.ResNetV2((2, 1), channels=(128, 256), num_classes=0, global_pool="", **standardised),
    ),
    "vit_small_resnet26d_224": (
        {"backbone": partial(_hybrid.resnet_d, depths=(2, 1), width=32)},
        lambda: timm.models.ResNet(
            timm.models.resnet.Bottleneck,
            (2, 1),
            channels=(32, 64),
            num_classes=0,
            stem_width=16,
            stem_type="deep",
            avg_down=True,
        ),
    ),
    "vit_base_mci_224": (
        {"backbone": partial(_hybrid.conv_stem, widths=(8, 16, 48)), "project": False},
        lambda: hybrid.ConvStem(
            channels=(8, 16, 48), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=torch.nn.GELU
        ),
    ),
}


class FeatureMap(torch.nn.Module):
    """The map of timm's ResNet, under the same names."""

    def __init__(self, resnet):
        super().__init__()
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2"):
            setattr(self, name, getattr(resnet, name))

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


def _pair(name: str, size, n_classes: int = 10, **overrides):
    """A narrow variant of ours and timm's with random parameters."""
    options, backbone = BACKBONES[name]
    backbone = backbone()
    if isinstance(backbone, timm.models.ResNet):
        backbone = FeatureMap(backbone)
    embed = partial(timm.layers.HybridEmbed, backbone=backbone, proj=options.get("project", True))
    patch = 8 if "p8" in name else 1
    rest = {"no_embed_class": True} if "mci" in name else {}
    ratio = 3 if "small_resnet" in name else 4
    reference = timm.models.VisionTransformer(
        img_size=size, patch_size=patch, embed_layer=embed, num_classes=n_classes, mlp_ratio=ratio, **NARROW, **rest
    )
    model = models.create(
        name, n_classes, size, embed=partial(_hybrid.hybrid_embed, **options), dim=48, depth=1, num_heads=3, **overrides
    )
    return model, oracle.randomise(reference.eval())


# Odd sizes, where TensorFlow's padding and the partial windows of pooling matter.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_r_s16_p8_224", (64, 93)),
        ("vit_small_r26_s32_224", (41, 54)),
        ("vit_small_resnet26d_224", (41, 54)),
        ("vit_base_mci_224", (48, 65)),
    ],
)
def test_logits_are_timms(name, size):
    model, reference = _pair(name, size)
    variables = assert_parity(model, reference)
    first, second = model.apply(variables, oracle.image(size)).value
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(first).max()


def test_published_size_is_timms():
    name = "vit_tiny_r_s16_p8_224"
    assert_parity(models.create(name), oracle.create(name), images=oracle.image(224, batch=1))


def test_gradients_are_timms():
    assert_gradient_parity(*_pair("vit_small_r26_s32_224", (32, 32)))


def test_training_is_timms():
    """Logits and running statistics with the batch's own."""
    model, reference = _pair("vit_small_resnet26d_224", (64, 64))
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image((64, 64), batch=4)
    found = jax.jit(lambda v, x: model.apply(v, x, training=True, rng=jax.random.key(0)))(variables, images)
    expected = oracle.run(reference.train(), images)
    assert relative_error(found.value, expected) <= 1e-5
    statistics = core.flatten(variables_from(model.spec(), oracle.state(reference)))
    for path, value in core.flatten({"batch_stats": found.batch_stats}).items():
        assert relative_error(value, statistics[path]) <= 1e-5, path


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_base_mci_224"])
def test_positions_for_other_images_are_timms(name):
    """They belong to patches of the network's map, not of the image."""
    (_, reference), (model, larger) = _pair(name, (96, 96)), _pair(name, (64, 160))
    larger.load_state_dict(hybrid.checkpoint_filter_fn(reference.state_dict(), larger))
    info = CheckpointInfo(
        family="vit", architecture=name, n_classes=10, preprocessing=Preprocessing(input_size=(96, 96))
    )
    found = core.flatten(assign(model, oracle.state(reference), info, key=jax.random.key(0)))
    for path, value in core.flatten(variables_from(model.spec(), oracle.state(larger))).items():
        assert relative_error(found[path], value) < 5e-6, path


def test_mobileclips_own_names():
    _, reference = _pair("vit_base_mci_224", (32, 32))
    names = [
        ("patch_embed.backbone.", "patch_emb."),
        (".conv.", ".block.conv."),
        (".bn.", ".block.norm."),
        ("blocks.", "transformer."),
        (".norm1.", ".pre_norm_mha.0."),
        (".norm2.", ".pre_norm_ffn.0."),
        (".attn.qkv.", ".pre_norm_mha.1.qkv_proj."),
        (".attn.proj.", ".pre_norm_mha.1.out_proj."),
        (".mlp.fc1.", ".pre_norm_ffn.1."),
        (".mlp.fc2.", ".pre_norm_ffn.4."),
    ]
    tensors = {"text_encoder.positional_embedding": np.ones(3, np.float32)}
    for name, value in oracle.state(reference).items():
        for old, new in names:
            name = name.replace(old, new)
        if name.startswith("norm."):
            name = f"post_transformer_{name}"
        if name == "pos_embed":
            name, value = "pos_embed.pos_embed.pos_embed", value[None]
        if name == "head.weight":
            name, value = "classifier.proj", value.T
        if name != "head.bias":
            tensors[f"image_encoder.model.{name}"] = value
    expected = hybrid._convert_mobileclip({name: torch.from_numpy(value) for name, value in tensors.items()}, None)
    found = renamed(tensors, registry.family("vit"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_stem_without_projection_has_the_tokens_width():
    with pytest.raises(ValueError, match="map has width 768, the tokens 64"):
        models.create("vit_base_mci_224", dim=64, num_heads=4).spec()


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_stays_bfloat16(name):
    model, _ = _pair(name, (32, 32), dtype="bfloat16")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.spec())
    output = jax.eval_shape(
        lambda v, x: model.apply(v, x, training=True, rng=jax.random.key(0), capture="*"), shapes, model.image()
    )
    assert {x.dtype for x in (output.value, *output.intermediates.values())} == {jnp.dtype(jnp.bfloat16)}
