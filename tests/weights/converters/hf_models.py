"""Tiny models of transformers, every parameter and buffer random, and how they are compared with flaim's."""

import json
from pathlib import Path

import jax
import torch

from flaim.weights import model_of
from flaim.weights.assign import assign
from flaim.weights.converters import transformers
from tests import oracle

import transformers as hf  # isort: skip -- after `oracle`, which makes torchvision importable

_SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
VIT = dict(_SIZES, intermediate_size=72)
_TEXT = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20)
TOWERS = dict(vision_config=VIT, text_config=dict(_TEXT, max_position_embeddings=8, bos_token_id=0, eos_token_id=1))
_STAGES = dict(hidden_sizes=[16, 24], depths=[1, 2])
_SWIN = dict(image_size=32, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
_RELATIVE = dict(VIT, use_relative_position_bias=True, layer_norm_eps=1e-3)
_PVT = dict(
    depths=[1, 2],
    hidden_sizes=[16, 24],
    num_attention_heads=[1, 2],
    sr_ratios=[4, 1],
    mlp_ratios=[2, 3],
    num_encoder_blocks=2,
    image_size=40,
)
_REGNET_002 = dict(hidden_sizes=[24, 56, 152, 368], depths=[1, 1, 4, 7], groups_width=8)
_EFFICIENT = dict(width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640)
MEANS = dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
LABELS = dict(id2label={i: f"class {i}" for i in range(5)})


def pooled(output):
    return output.pooler_output.flatten(1)


def _tokens(output):
    return output.last_hidden_state


def logits(output):
    return output.logits


# The class, its configuration's options, what of its output to compare, our `n_classes` where not the checkpoint's.
MODELS = {
    "vit": (hf.ViTForImageClassification, dict(VIT, **LABELS), logits, None),
    "vit-no-bias": (hf.ViTForImageClassification, dict(VIT, qkv_bias=False, hidden_act="gelu_new"), logits, None),
    "vit-remainder": (hf.ViTForImageClassification, dict(VIT, image_size=36, layer_norm_eps=1e-2), logits, None),
    "vit-pooler": (hf.ViTModel, dict(VIT, pooler_output_size=24), pooled, None),
    "vit-tokens": (hf.ViTModel, VIT, _tokens, 0),
    "deit": (hf.DeiTForImageClassification, VIT, logits, None),
    "deit-pooler": (hf.DeiTModel, VIT, pooled, None),
    "deit-distilled": (hf.DeiTForImageClassificationWithTeacher, VIT, logits, None),
    "dinov2": (hf.Dinov2Model, _SIZES, pooled, None),
    "dinov2-classifier": (hf.Dinov2ForImageClassification, _SIZES, logits, None),
    "dinov2-registers": (hf.Dinov2WithRegistersForImageClassification, _SIZES, logits, None),
    "dinov2-swiglu": (hf.Dinov2WithRegistersModel, dict(_SIZES, use_swiglu_ffn=True), _tokens, 0),
    "clip-tower": (hf.CLIPVisionModel, VIT, pooled, None),
    "clip-projection": (
        hf.CLIPVisionModelWithProjection,
        dict(VIT, projection_dim=12, hidden_act="gelu"),
        lambda output: output.image_embeds,
        None,
    ),
    "clip-classifier": (hf.CLIPForImageClassification, dict(TOWERS, **LABELS), logits, None),
    "beit": (hf.BeitForImageClassification, dict(_RELATIVE, **LABELS), logits, None),
    "beit-pooler": (hf.BeitModel, dict(_RELATIVE, layer_scale_init_value=0.0, hidden_act="gelu_new"), pooled, None),
    "beit-tokens": (hf.BeitModel, dict(VIT, use_absolute_position_embeddings=True), _tokens, 0),
    "beit-shared": (
        hf.BeitModel,
        dict(_RELATIVE, use_shared_relative_position_bias=True, use_mask_token=True, use_mean_pooling=False),
        pooled,
        None,
    ),
    "data2vec-vision": (
        hf.Data2VecVisionForImageClassification,
        dict(_RELATIVE, use_shared_relative_position_bias=True),
        logits,
        None,
    ),
    "dinov3_vit": (hf.DINOv3ViTModel, dict(VIT, num_register_tokens=4, layer_norm_eps=1e-3), pooled, None),
    "dinov3_vit-tokens": (hf.DINOv3ViTModel, dict(VIT, image_size=[32, 48], rope_theta=50.0), _tokens, 0),
    "dinov3_vit-gated": (
        hf.DINOv3ViTModel,
        dict(VIT, use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
        pooled,
        None,
    ),
    "dinov3_vit-biases": (
        hf.DINOv3ViTModel,
        dict(VIT, key_bias=True, mlp_bias=False, hidden_act="gelu_new", num_register_tokens=2),
        pooled,
        None,
    ),
    "siglip-tower": (hf.SiglipVisionModel, VIT, pooled, None),
    "siglip-headless": (hf.SiglipVisionModel, dict(VIT, vision_use_head=False), _tokens, 0),
    "siglip-classifier": (hf.SiglipForImageClassification, TOWERS, logits, None),
    "swin": (hf.SwinForImageClassification, dict(_SWIN, **LABELS), logits, None),
    "swin-no-bias": (hf.SwinModel, dict(_SWIN, qkv_bias=False, mlp_ratio=2.5), pooled, None),
    "swinv2": (hf.Swinv2ForImageClassification, dict(_SWIN, **LABELS), logits, None),
    "swinv2-pretrained": (
        hf.Swinv2Model,
        dict(_SWIN, pretrained_window_sizes=[6, 3], qkv_bias=False, mlp_ratio=2.5),
        pooled,
        None,
    ),
    "swinv2-padded": (
        hf.Swinv2Model,
        dict(_SWIN, image_size=[44, 56], depths=[1, 1]),
        lambda output: output.last_hidden_state.unflatten(1, (6, 7)),
        0,
    ),
    "pvt_v2": (hf.PvtV2ForImageClassification, dict(_PVT, layer_norm_eps=1e-2, **LABELS), logits, None),
    "pvt_v2-linear": (
        hf.PvtV2Model,
        dict(_PVT, linear_attention=True, qkv_bias=False),
        lambda output: output.last_hidden_state.permute(0, 2, 3, 1),
        0,
    ),
    "convnext": (hf.ConvNextForImageClassification, dict(_STAGES, num_stages=2, layer_norm_eps=1e-2), logits, None),
    "convnextv2": (hf.ConvNextV2Model, dict(_STAGES, num_stages=2), pooled, None),
    "dinov3_convnext": (hf.DINOv3ConvNextModel, dict(_STAGES, layer_norm_eps=1e-2), pooled, None),
    "regnet-y": (hf.RegNetForImageClassification, dict(_REGNET_002, **LABELS), logits, None),
    "regnet-x": (hf.RegNetModel, dict(_REGNET_002, layer_type="x", hidden_act="gelu"), pooled, None),
    "resnet-bottleneck": (hf.ResNetForImageClassification, dict(_STAGES, embedding_size=8, **LABELS), logits, None),
    "resnet-basic": (
        hf.ResNetModel,
        dict(_STAGES, layer_type="basic", embedding_size=16, downsample_in_first_stage=True),
        pooled,
        None,
    ),
    "resnet-v1": (hf.ResNetForImageClassification, dict(_STAGES, downsample_in_bottleneck=True), logits, None),
    "efficientnet": (hf.EfficientNetForImageClassification, dict(_EFFICIENT, image_size=64), logits, None),
    "efficientnet-odd": (
        hf.EfficientNetForImageClassification,
        dict(_EFFICIENT, image_size=50, depthwise_padding=[1, 2], batch_norm_eps=1e-2),
        logits,
        None,
    ),
    "mobilenet_v2": (hf.MobileNetV2ForImageClassification, dict(depth_multiplier=0.35, image_size=40), logits, None),
    "mobilenet_v2-narrow": (
        hf.MobileNetV2Model,
        dict(depth_multiplier=0.25, tf_padding=False, finegrained_output=False, image_size=32),
        pooled,
        None,
    ),
}


def build(name: str) -> torch.nn.Module:
    """transformers' model, random to the last buffer."""
    cls, options, *_ = MODELS[name]
    return oracle.randomise(cls(cls.config_class(**options)).eval())


def read(folder: Path) -> tuple[dict, dict]:
    """All tensors and JSON files of a folder."""
    from safetensors.numpy import load_file

    tensors = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    return tensors, {file.name: json.loads(file.read_text()) for file in folder.glob("*.json")}


def load(tensors: dict, files: dict, n_classes: int | None = None):
    """Configuration, model and variables by way of the translation alone."""
    assert transformers.recognises(tensors, files)
    config = transformers.describe(tensors, files, "the folder").replace(converter="transformers")
    model = model_of(config, n_classes)
    return config, model, assign(model, tensors, config, key=jax.random.key(0))


@torch.no_grad()
def assert_same(model, variables, reference, pick) -> None:
    images = oracle.image(model.input_size)
    expected = pick(reference(oracle.to_torch(images))).numpy()
    found = jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)
    error = oracle.relative_error(found, expected)
    print(f"{model.name}: {error:.1e}")
    assert error <= 1e-5, f"{model.name}: relative error {error:.2e}"
