"""EVA and its descendants against timm, narrow and two blocks deep: each attention, MLP, norm, rotation and pooling."""

import jax
import numpy as np
import pytest
import torch

from flaim import models
from flaim.models import eva
from flaim.weights.converters.timm import renamed
from tests import oracle
from tests.parity import assert_gradient_parity, assert_parity, variables_from

WIDTH, DEPTH, HEADS = 32, 2, 2
SAPIENS2 = "vit_large_patch16_sapiens2"

# Between them, every option of the variant table with each of its values.
VARIANTS = (
    "eva_giant_patch14_224",  # no rotation
    "eva02_tiny_patch14_336",  # packed gated MLP
    "eva02_base_patch14_448",  # separate projections, a norm in a gated MLP
    "eva02_base_patch16_clip_224",  # a norm in the attention
    "eva02_enormous_patch14_clip_224",  # norms after the branches
    "vit_mediumd_patch16_rope_reg1_gap_256",  # a register and no class token, no biases, layer scale
    "vit_pe_core_tiny_patch16_384",  # rows and columns from 1, a norm before the blocks, attention pooling
    "vit_pe_lang_gigantic_patch14_448",  # no prefix tokens, no last norm
    "vit_small_patch16_rope_ape_224",  # absolute positions, but not of the class token
    "vit_small_patch16_rope_mixed_224",  # learned frequencies
    "vit_small_patch16_dinov3_qkvb",  # centred coordinates, pairs of the halves' channels
    "vit_small_plus_patch16_dinov3",  # gated MLP without a norm
    SAPIENS2,  # fewer keys and values, RMS norms of queries and keys, layer scale of the attention alone
)


def _pair(name: str, n_classes: int = 10, **overrides) -> tuple[models.Model, torch.nn.Module]:
    """A narrow variant of ours and timm's with random parameters, for images that are not square."""
    patch = eva.VARIANTS[name]["patch_size"]
    size = (2 * patch, 3 * patch)
    narrow: dict = dict(depth=DEPTH, num_heads=HEADS)
    if name == SAPIENS2:
        narrow["num_kv_heads"] = (HEADS, 1)
    model = models.create(name, n_classes, size, dim=WIDTH, **narrow, **overrides)
    return model, oracle.create(name, img_size=size, embed_dim=WIDTH, num_classes=max(n_classes, 0), **narrow)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_timms(name):
    model, reference = _pair(name)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(model.input_size))
    assert oracle.relative_error(first, second) > 1e-2


def test_published_size_is_timms():
    name = "vit_tiny_patch16_dinov3_qkvb"
    assert_parity(models.create(name, 10), oracle.create(name, num_classes=10), images=oracle.image(256, batch=1))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_336", "vit_pe_core_tiny_patch16_384"])
def test_tokens_and_pooled_features_are_timms(name):
    model, reference = _pair(name)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size)
    with torch.no_grad():
        tokens = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(tokens, pre_logits=True)
    for n_classes, expected in ((0, tokens), (-1, pooled)):
        headless = model.replace(n_classes=n_classes)
        found = jax.jit(lambda v, x, model=headless: model.apply(v, x).value)(variables, images)
        assert oracle.relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("name", ["vit_small_patch16_rope_mixed_224", "vit_small_patch16_dinov3_qkvb", SAPIENS2])
def test_intermediates_are_timms_also_of_scanned_blocks(name):
    model, reference = _pair(name)
    variables = variables_from(model.spec(), oracle.state(reference))
    images = oracle.image(model.input_size)
    with torch.no_grad():
        expected = reference.forward_intermediates(
            oracle.to_torch(images), output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    for run in (model, model.replace(scan=True)):
        found = jax.jit(lambda v, x, run=run: run.apply(v, x, capture="block_*").intermediates)(variables, images)
        assert list(found) == ["block_0", "block_1", "block_2"]
        for i, (patches, prefix) in enumerate(expected, 1):
            assert oracle.relative_error(found[f"block_{i}"], torch.cat([prefix, patches], 1)) <= 1e-5


@pytest.mark.parametrize("name", ["vit_small_patch16_rope_mixed_224", "eva02_base_patch16_clip_224"])
def test_gradients_are_timms(name):
    assert_gradient_parity(*_pair(name))


def test_random_frequencies_are_as_timms():
    model, _ = _pair("vit_small_patch16_rope_mixed_224")
    found = np.asarray(model.init(jax.random.key(0))["params"]["rope"]["freqs"])
    arguments = dict(img_size=model.input_size, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS)
    expected = oracle.timm.create_model(model.name, **arguments).rope.freqs.detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.hypot(*found), np.hypot(*expected), rtol=1e-5)
    directions = np.arctan2(found[1], found[0])
    first, second = np.split(directions, 2, axis=-1)
    np.testing.assert_allclose((second - first) % (2 * np.pi), np.pi / 2, rtol=1e-4)  # a right angle, as in timm
    assert len(np.unique(directions[..., 0])) == DEPTH * HEADS


# Original names, by an architecture: replacements that make them from timm's, and what timm drops.
ORIGINAL: dict[str, tuple] = {
    "perception_encoder": (
        "vit_pe_core_tiny_patch16_384",
        {
            "blocks.": "transformer.resblocks.",
            "attn_pool.q.": "attn_pool.attn.q.",
            "attn_pool.norm.": "attn_pool.layernorm.",
            "attn_pool.latent": "attn_pool.probe",
            "attn_pool.proj.": "attn_pool.attn.out_proj.",
            ".attn.proj.": ".attn.out_proj.",
            ".mlp.fc1.": ".mlp.c_fc.",
            ".mlp.fc2.": ".mlp.c_proj.",
            ".attn.qkv.": ".attn.in_proj_",
            ".norm1.": ".ln_1.",
            ".norm2.": ".ln_2.",
            "norm_pre.": "ln_pre.",
            "patch_embed.proj.": "conv1.",
            "cls_token": "class_embedding",
            "pos_embed": "positional_embedding",
        },
        (),
    ),
    "eva02": (
        "eva02_base_patch16_clip_224",
        {
            "mlp.norm.": "mlp.ffn_ln.",
            "attn.norm.": "attn.inner_attn_ln.",
            "fc1_g": "w1",
            "fc1_x": "w2",
            "fc2": "w3",
            "q_proj.bias": "q_bias",
            "v_proj.bias": "v_bias",
        },
        ("rope.freqs_cos", "blocks.0.attn.rope.freqs_sin"),
    ),
    "dinov3": (
        "vit_small_plus_patch16_dinov3",
        {"gamma_": "ls%.gamma", "reg_token": "storage_tokens", "fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"},
        ("mask_token", "rope_embed.periods", "blocks.0.attn.qkv.bias_mask", "local_cls_norm.weight"),
    ),
    "sapiens2": (
        "vit_large_patch16_sapiens2",
        {
            "reg_token": "storage_tokens",
            "patch_embed.proj.": "patch_embed.projection.",
            "q_proj": "wq",
            "k_proj": "wk",
            "v_proj": "wv",
            "gamma_1": "attn.gamma.weight",
            "mlp.fc1": "ffn.w12",
            "mlp.fc2": "ffn.w3",
            ".norm1.": ".ln1.",
            ".norm2.": ".ln2.",
        },
        ("mask_token", "rope_embed.periods"),
    ),
}


def _original(name: str) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    """timm's model, and its tensors under their original names."""
    architecture, replacements, dropped = ORIGINAL[name]
    _, reference = _pair(architecture)
    tensors = {}
    for key, value in oracle.state(reference).items():
        for new, old in replacements.items():
            key = key.replace(new, old)
        if "ls%.gamma" in key:  # the number comes before the name
            key = key.replace("ls%.gamma", f"ls{key[-1]}.gamma")[:-1]
        key = key.replace("norm.", "ln_post.") if name == "perception_encoder" and key.startswith("norm.") else key
        key = key.replace("norm.", "ln1.") if name == "sapiens2" and key.startswith("norm.") else key
        tensors[key] = value
    tensors |= {key: np.ones(2, np.float32) for key in dropped}
    return reference, tensors


def _assert_renamed_as_by_timm(reference: torch.nn.Module, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    expected = oracle.timm.models.eva.checkpoint_filter_fn(
        {name: torch.from_numpy(value) for name, value in tensors.items()}, reference
    )
    found = renamed(tensors, eva.FAMILY)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])
    return found


def _perception_encoder() -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    reference, tensors = _original("perception_encoder")
    for leaf in ("weight", "bias"):
        parts = tensors.pop(f"attn_pool.attn.q.{leaf}"), tensors.pop(f"attn_pool.kv.{leaf}")
        tensors[f"attn_pool.attn.in_proj_{leaf}"] = np.concatenate(parts)
    tensors["class_embedding"], tensors["positional_embedding"] = (
        tensors["class_embedding"][0, 0],
        tensors["positional_embedding"][0],
    )
    tensors["proj"] = tensors.pop("head.weight").T.copy()
    del tensors["head.bias"]
    return reference, tensors


@pytest.mark.parametrize("prefix", ["", "visual."])
def test_original_perception_encoders_are_read(prefix):
    reference, tensors = _perception_encoder()
    tensors = {f"{prefix}{name}": value for name, value in tensors.items()}
    if prefix:
        tensors |= {"logit_scale": np.ones(()), "transformer.resblocks.0.ln_1.weight": np.ones(WIDTH)}
    found = _assert_renamed_as_by_timm(reference, tensors)
    assert found.keys() == oracle.state(reference).keys()


@pytest.mark.parametrize("name", ["eva02", "sapiens2"])
def test_original_names_are_read(name):
    reference, tensors = _original(name)
    assert _assert_renamed_as_by_timm(reference, tensors).keys() == oracle.state(reference).keys()


@pytest.mark.parametrize("prefix", ["visual.", "visual.trunk."])
def test_towers_of_clip_models_are_read(prefix):
    reference, tensors = _original("eva02")
    tower = {f"{prefix}{name}": value for name, value in tensors.items()}
    found = _assert_renamed_as_by_timm(reference, {**tower, "text.token_embedding.weight": np.ones(2)})
    assert found.keys() == oracle.state(reference).keys()


def test_checkpoints_after_masked_pretraining_are_read():
    _, reference = _pair("eva02_tiny_patch14_336")
    tensors = {
        name.replace("fc_norm.", "norm."): value
        for name, value in oracle.state(reference).items()
        if not name.startswith("head.")
    }
    tensors |= {name: np.ones(2) for name in ("mask_token", "lm_head.weight", "lm_head.bias")}
    assert "fc_norm.weight" in _assert_renamed_as_by_timm(reference, tensors)


def test_original_dinov3_is_read_with_biases_and_without_use_for_them():
    reference, tensors = _original("dinov3")
    bias = np.arange(3 * WIDTH, dtype=np.float32)
    tensors |= {f"blocks.{i}.attn.qkv.bias": bias for i in range(DEPTH)}
    tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    found = renamed(tensors, eva.FAMILY)
    biases = {name for name in found if name.endswith("_bias")}
    assert biases == {f"blocks.{i}.attn.{leaf}_bias" for i in range(DEPTH) for leaf in "qv"}
    np.testing.assert_array_equal(found["blocks.1.attn.v_bias"], bias[2 * WIDTH :])
    expected = {name for name in oracle.state(reference) if not name.startswith("head.")}
    assert found.keys() - biases == expected
    unused = eva.FAMILY.timm.unused
    assert all(unused("vit_small_plus_patch16_dinov3", name) for name in biases)
    assert not any(unused("vit_pe_core_tiny_patch16_384", name) for name in biases)


def test_options_that_do_not_fit_together_are_errors():
    with pytest.raises(ValueError, match="class_token=False"):
        models.create("vit_small_patch16_rope_224", class_token=False).spec()
    with pytest.raises(ValueError, match="post_norm_block has no layer scale"):
        models.create("eva02_enormous_patch14_clip_224", layer_scale_init=1.0, depth=1).spec()
    with pytest.raises(ValueError, match="225x225 does not divide into patches of 16x16"):
        models.create("vit_tiny_patch16_dinov3_qkvb", input_size=225).spec()
