"""Older forms of checkpoints: timm's own filters say that each is one, flaim's tables lead to the same variables."""

import re

import jax
import numpy as np
import pytest
import torch

import flaim.models
import flaim_core as core
from flaim.weights import CheckpointError, CheckpointInfo, Preprocessing
from flaim.weights.assign import assign
from flaim.weights.converters import timm as naming
from flaim.weights.formats import read
from tests import oracle, parity
from tests.oracle import timm


def rename(state: dict[str, np.ndarray], *rules: tuple[str, str]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def check(architecture: str, reference, old: dict[str, np.ndarray], filter_fn, **options) -> None:
    """`old` becomes the variables of `reference`, and timm's `filter_fn` agrees that it should."""
    assert old.keys() != oracle.state(reference).keys()
    filtered = filter_fn({name: torch.from_numpy(np.array(value)) for name, value in old.items()}, reference)
    state = reference.state_dict()
    assert filtered.keys() == state.keys()
    assert all(torch.equal(filtered[name], value) for name, value in state.items())

    classes = reference.num_classes
    model = flaim.models.create(architecture, n_classes=classes or -1, **options)
    config = CheckpointInfo(
        family=flaim.models.family_of(architecture),
        architecture=architecture,
        n_classes=classes or -1,
        preprocessing=Preprocessing(input_size=model.input_size),
    )
    found = core.flatten(assign(model, old, config, key=jax.random.key(0)))
    expected = core.flatten(parity.variables_from(model.spec(), oracle.state(reference)))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], value) for path, value in expected.items())


def test_names_and_layouts_are_those_of_the_structural_tests():
    assert naming._NAMES == parity.TORCH_NAMES
    axes = {ours: tuple(map(theirs.index, ours)) for ours, theirs in naming.TORCH_LAYOUTS.items()}
    assert {"": None, **axes} == parity.FROM_TORCH


@pytest.mark.parametrize("name", ["test_convnext", "test_convnext2", "convnextv2_atto"])
def test_original_convnext(name):
    reference = oracle.create(name)
    old = rename(
        oracle.state(reference),
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc", ".pwconv"),
        (r"\.mlp\.grn\.weight", ".grn.gamma"),
        (r"\.mlp\.grn\.bias", ".grn.beta"),
        (r"^head\.fc\.", "head."),
        (r"^head\.norm\.", "norm."),
    )
    old |= {k: v.reshape(1, 1, 1, -1) for k, v in old.items() if ".grn." in k}
    check(name, reference, old, timm.models.convnext.checkpoint_filter_fn)


def test_openclip_convnext():
    reference = oracle.create("convnext_atto", num_classes=16)
    torch.nn.init.zeros_(reference.head.fc.bias)
    old = rename(oracle.state(reference), (r"^", "visual.trunk."), (r"visual\.trunk\.head\.fc\.", "visual.head.proj."))
    del old["visual.head.proj.bias"]
    old["text.token_embedding.weight"] = np.zeros((4, 4), np.float32)
    check("convnext_atto", reference, old, timm.models.convnext.checkpoint_filter_fn)


@pytest.mark.parametrize("masked", [False, True], ids=["", "SimMIM"])
def test_original_swin(masked):
    options = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    reference = oracle.create("swin_tiny_patch4_window7_224", embed_dim=24, num_classes=0 if masked else 9, **options)
    old = rename(
        oracle.state(reference),
        (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample"),
        (r"^head\.fc\.", "head."),
    )
    old["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((49, 49), np.int64)
    old["layers.0.blocks.0.attn_mask"] = np.zeros((64, 49, 49), np.float32)
    options = {"dim": 24, **options}
    filter_fn = timm.models.swin_transformer.checkpoint_filter_fn
    if masked:  # timm reads these after the prefix is gone
        old = rename(old, (r"^", "encoder."))
        decoder = {"encoder.mask_token": (1, 1, 24), "decoder.0.weight": (48, 192, 1, 1), "decoder.0.bias": (48,)}
        old |= {name: np.zeros(shape, np.float32) for name, shape in decoder.items()}

        def filter_fn(state, model):
            state = {name.removeprefix("encoder."): value for name, value in state.items() if name not in decoder}
            return timm.models.swin_transformer.checkpoint_filter_fn(state, model)

    check("swin_tiny_patch4_window7_224", reference, old, filter_fn, **options)


SMALL_REGNET = {"depth": 6, "w0": 16, "wa": 16.0, "wm": 2.0, "group_size": 8}
# A block's names in torchvision and Classy Vision, which differ in the last norm and the projection.
REGNET_BLOCK = (
    (r"\.conv1\.conv\.", ".f.a.0."),
    (r"\.conv1\.bn\.", ".f.a.1."),
    (r"\.conv2\.conv\.", ".f.b.0."),
    (r"\.conv2\.bn\.", ".f.b.1."),
    (r"^stem\.conv\.", "stem.0."),
    (r"^stem\.bn\.", "stem.1."),
)


def test_torchvisions_regnet():
    reference = oracle.create("regnety_004", **SMALL_REGNET)
    old = rename(
        oracle.state(reference),
        *REGNET_BLOCK,
        (r"\.conv3\.conv\.", ".f.c.0."),
        (r"\.conv3\.bn\.", ".f.c.1."),
        (r"\.se\.", ".f.se."),
        (r"\.downsample\.conv\.", ".proj.0."),
        (r"\.downsample\.bn\.", ".proj.1."),
        (r"^s(\d)\.b(\d+)", lambda match: f"trunk_output.block{match[1]}.block{match[1]}-{int(match[2]) - 1}"),
        (r"^head\.fc\.", "fc."),
    )
    check("regnety_004", reference, old, lambda state, model: timm.models.regnet._filter_fn(state), **SMALL_REGNET)


@pytest.mark.parametrize("classes", [0, 5])
def test_seers_regnet(tmp_path, classes):
    reference = oracle.create("regnety_320", num_classes=classes, **SMALL_REGNET)
    old = rename(
        oracle.state(reference),
        *REGNET_BLOCK,
        (r"\.conv3\.conv\.", ".f.c."),
        (r"\.conv3\.bn\.", ".f.final_bn."),
        (r"\.se\.fc1\.", ".f.se.excitation.0."),
        (r"\.se\.fc2\.", ".f.se.excitation.2."),
        (r"\.downsample\.conv\.", ".proj."),
        (r"\.downsample\.bn\.", ".bn."),
        (r"^stem\.", "_feature_blocks.conv1.stem."),
        (
            r"^s(\d)\.b(\d+)",
            lambda match: f"_feature_blocks.res{int(match[1]) + 1}.block{match[1]}-{int(match[2]) - 1}",
        ),
        (r"^head\.fc\.", "0.clf.0."),
    )
    old = {name: torch.from_numpy(np.array(value)) for name, value in old.items()}
    heads = {name: value for name, value in old.items() if name.startswith("0.clf.")}
    if not classes:
        heads = {"0.projection_head.0.weight": torch.zeros(4, 4), "0.prototypes0.weight": torch.zeros(4, 4)}
    trunk = {name: value for name, value in old.items() if not name.startswith("0.clf.")}
    checkpoint = {
        "phase_idx": 1,
        "loss": {"name": "loss", "state": torch.zeros(3)},
        "classy_state_dict": {
            "optimizer": {"state": {"momentum": [torch.zeros(3)]}},
            "base_model": {"model": {"trunk": trunk, "heads": heads}},
        },
    }
    torch.save(checkpoint, tmp_path / "seer.torch")
    tensors = read(tmp_path / "seer.torch")
    check("regnety_320", reference, tensors, lambda *_: timm.models.regnet._filter_fn(checkpoint), **SMALL_REGNET)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2_li"])
def test_original_pvt_v2(name):
    reference = oracle.create(name, embed_dims=(8, 16, 40, 16), depths=(1, 1, 1, 2))
    old = rename(
        oracle.state(reference),
        (r"^patch_embed\.", "patch_embed1."),
        (r"^stages\.(\d)\.downsample", lambda match: f"patch_embed{int(match[1]) + 1}"),
        (r"^stages\.(\d)\.blocks", lambda match: f"block{int(match[1]) + 1}"),
        (r"^stages\.(\d)\.norm", lambda match: f"norm{int(match[1]) + 1}"),
        (r"\.dwconv\.", ".dwconv.dwconv."),
    )
    options = {"dims": (8, 16, 40, 16), "depths": (1, 1, 1, 2)}
    check(name, reference, old, timm.models.pvt_v2.checkpoint_filter_fn, **options)


def test_original_swinv2():
    options = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    reference = oracle.create("swinv2_tiny_window8_256", embed_dim=16, **options)
    old = rename(
        oracle.state(reference),
        (r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample"),
        (r"^head\.fc\.", "head."),
    )
    old["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((64, 64), np.int64)
    old["layers.0.blocks.0.attn.relative_coords_table"] = np.zeros((1, 15, 15, 2), np.float32)
    old["layers.2.blocks.1.attn_mask"] = np.zeros((4, 64, 64), np.float32)
    options = {"dim": 16, **options}
    check("swinv2_tiny_window8_256", reference, old, timm.models.swin_transformer_v2.checkpoint_filter_fn, **options)


SMALL_DAVIT = {"depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}


def test_original_davit():
    reference = oracle.create("davit_tiny", embed_dims=(8, 16, 32, 64), **SMALL_DAVIT)
    old = rename(
        oracle.state(reference),
        (r"^stem", "stages.0.downsample"),
        (r"^stages\.(\d+)\.downsample", r"patch_embeds.\1"),
        (r"^(patch_embeds\.\d+)\.conv", r"\1.proj"),
        (r"^stages\.(\d+)\.blocks", r"main_blocks.\1"),
        (r"\.cpe1\.", ".cpe.0."),
        (r"\.cpe2\.", ".cpe.1."),
        (r"^head\.norm\.", "norms."),
        (r"^head\.fc\.", "head."),
    )
    options = {"dims": (8, 16, 32, 64), **SMALL_DAVIT}
    check("davit_tiny", reference, old, timm.models.davit.checkpoint_filter_fn, **options)


def test_florence2():
    reference = oracle.create("davit_base_fl", embed_dims=(8, 16, 32, 64), **SMALL_DAVIT)
    torch.nn.init.ones_(reference.head.norm.weight)  # not in the file
    torch.nn.init.zeros_(reference.head.norm.bias)
    old = rename(
        {name: value for name, value in oracle.state(reference).items() if not name.startswith("head.")},
        (r"^stem", "stages.0.downsample"),
        (r"^stages\.(\d+)\.downsample", r"vision_tower.convs.\1"),
        (r"(\.convs\.\d+)\.conv", r"\1.proj"),
        (r"^stages\.(\d+)\.blocks", r"vision_tower.blocks.\1"),
        (r"\.cpe(\d)\.proj\.", r".conv\1.fn.dw."),
        (r"\.(spatial|channel)_block\.norm1\.", r".\1_block.\1_attn.norm."),
        (r"\.(spatial|channel)_block\.attn\.", r".\1_block.\1_attn.fn."),
        (r"\.spatial_attn\.", ".window_attn."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"\.mlp\.", ".ffn.fn.net."),
    )
    old["language_model.model.shared.weight"] = np.zeros((4, 4), np.float32)

    def filter_fn(state, model):  # timm loads what this gives without a check: the norm stays as it is
        norm = {f"head.norm.{name}": getattr(model.head.norm, name).detach() for name in ("weight", "bias")}
        return timm.models.davit.checkpoint_filter_fn(state, model) | norm

    check("davit_base_fl", reference, old, filter_fn, dims=(8, 16, 32, 64), **SMALL_DAVIT)


SMALL_VIT = {"depth": 2, "num_heads": 2}
vit_filter = timm.models.vision_transformer.checkpoint_filter_fn


def test_openai_clip():
    name = "vit_base_patch32_clip_224"
    reference = oracle.create(name, embed_dim=32, num_classes=16, **SMALL_VIT)
    torch.nn.init.zeros_(reference.head.bias)
    old = rename(
        oracle.state(reference),
        (r"^patch_embed\.proj", "conv1"),
        (r"^pos_embed", "positional_embedding"),
        (r"^cls_token", "class_embedding"),
        (r"^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm(\d)", r".ln_\1"),
        (r"\.qkv\.", ".in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1", ".mlp.c_fc"),
        (r"\.mlp\.fc2", ".mlp.c_proj"),
        (r"^head\.weight", "proj"),
        (r"^", "visual."),
    )
    del old["visual.head.bias"]
    old["visual.proj"] = old["visual.proj"].T
    old["visual.class_embedding"] = old["visual.class_embedding"][0, 0]
    old["visual.positional_embedding"] = old["visual.positional_embedding"][0]
    old["transformer.resblocks.0.ln_1.weight"] = np.zeros(8, np.float32)
    check(name, reference, old, vit_filter, dim=32, **SMALL_VIT)


def test_openclip_vit():
    name = "vit_base_patch32_clip_224"
    reference = oracle.create(name, embed_dim=32, num_classes=16, **SMALL_VIT)
    torch.nn.init.zeros_(reference.head.bias)
    old = rename(oracle.state(reference), (r"^", "visual.trunk."), (r"visual\.trunk\.head\.", "visual.head.proj."))
    del old["visual.head.proj.bias"]
    old["logit_scale"] = np.zeros((), np.float32)
    check(name, reference, old, vit_filter, dim=32, **SMALL_VIT)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_giant_patch14_dinov2"])
def test_dinov2(name):
    reference = oracle.create(name, embed_dim=32, img_size=56, **SMALL_VIT)
    gated = r"w12" if "giant" in name else "fc1"
    old = rename(
        oracle.state(reference),
        (r"mlp\.fc1", f"mlp.{gated}"),
        (r"mlp\.fc2", f"mlp.{'w3' if gated == 'w12' else 'fc2'}"),
    )
    old["mask_token"] = np.zeros((1, 32), np.float32)
    check(name, reference, old, vit_filter, dim=32, input_size=56, **SMALL_VIT)


def test_dinov2_with_registers():
    name = "vit_small_patch14_reg4_dinov2"
    reference = oracle.create(name, embed_dim=32, img_size=56, **SMALL_VIT)
    old = rename(oracle.state(reference), (r"^reg_token", "register_tokens"))
    old["mask_token"] = np.zeros((1, 32), np.float32)
    position = np.full((1, 1, 32), 0.5, np.float32)
    with torch.no_grad():  # a token from which the position can be taken away and be added again without rounding
        reference.cls_token.copy_(reference.cls_token.round())
    old["cls_token"] = oracle.state(reference)["cls_token"] - position
    old["pos_embed"] = np.concatenate([position, old["pos_embed"]], axis=1)
    check(name, reference, old, vit_filter, dim=32, input_size=56, **SMALL_VIT)


def test_original_deit3():
    name = "deit3_small_patch16_224"
    reference = oracle.create(name, embed_dim=32, img_size=64, **SMALL_VIT)
    old = rename(oracle.state(reference), (r"\.ls(\d)\.gamma", r".gamma_\1"))
    check(
        name,
        reference,
        old,
        lambda state, model: vit_filter(state, model, adapt_layer_scale=True),
        dim=32,
        input_size=64,
        **SMALL_VIT,
    )


def test_representation_layer():
    reference = oracle.create("test_vit")
    old = oracle.state(reference) | {"pre_logits.fc.weight": np.zeros((64, 64), np.float32)}
    check("test_vit", reference, old, vit_filter)


def test_dense_layers_for_convolutions():
    """timm lets a 1x1 convolution stand for a dense layer in its hybrids."""
    reference = oracle.create("test_maxvit")
    old = oracle.state(reference)
    old = {name: v[:, :, None, None] if name.endswith("qkv.weight") else v for name, v in old.items()}
    old["buffer.attn_mask"] = np.zeros(1, np.float32)

    def maxxvit_filter(state, model):
        del state["buffer.attn_mask"]
        return timm.models.maxxvit.checkpoint_filter_fn(state, model)

    check("test_maxvit", reference, old, maxxvit_filter)


def test_wrapped_by_data_parallelism():
    reference = oracle.create("test_resnet")
    old = rename(oracle.state(reference), (r"^", "_orig_mod.module."))
    check("test_resnet", reference, old, lambda state, _: timm.models.clean_state_dict(state))


def test_unused_attention_pooling_of_siglip():
    """SigLIP towers that average may come with the pooling that they were trained with; others may not."""
    extra = {"attn_pool.latent": np.zeros((1, 1, 32), np.float32)}
    for name, fits in (("vit_base_patch16_siglip_gap_224", True), ("vit_base_patch16_224", False)):
        state = oracle.state(oracle.create(name, embed_dim=32, **SMALL_VIT)) | extra
        model = flaim.models.create(name, n_classes=-1, dim=32, **SMALL_VIT)
        config = CheckpointInfo(family="vit", architecture=name, n_classes=-1)
        if fits:
            assign(model, state, config, key=jax.random.key(0))
        else:
            with pytest.raises(CheckpointError, match=r"attn_pool\.latent: unexpected"):
                assign(model, state, config, key=jax.random.key(0))


def test_two_classifiers():
    """DeiT's distilled models have a second classifier, which is fresh with the first."""
    name = "deit_tiny_distilled_patch16_224"
    reference = oracle.create(name, embed_dim=32, **SMALL_VIT)
    model = flaim.models.create(name, n_classes=5, dim=32, **SMALL_VIT)
    config = CheckpointInfo(family="vit", architecture=name)
    variables = assign(model, oracle.state(reference), config, key=jax.random.key(1))
    drawn = model.init(jax.random.key(1))["params"]
    for classifier in ("head", "head_dist"):
        assert np.array_equal(variables["params"][classifier]["kernel"], drawn[classifier]["kernel"])
    # Without a classifier both are left out.
    assert (
        "head_dist"
        not in assign(model.replace(n_classes=-1), oracle.state(reference), config, key=jax.random.key(1))["params"]
    )
