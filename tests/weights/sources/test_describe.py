"""What a checkpoint's configuration says, and what is refused of it."""

import shutil

import pytest

from flaim.weights import CatalogueError, CheckpointError, get_model
from tests.parity import assert_same_output


def test_model_arguments(saved):
    options = {"global_pool": "avg", "reg_tokens": 2, "no_embed_class": True, "depth": 2, "init_values": 0.1}
    reference, folder = saved("test_vit", **options)
    model, variables, _ = get_model(f"local-dir:{folder}")
    assert_same_output(model, variables, reference)


def test_model_arguments_that_flaim_lacks(saved):
    _, folder = saved("test_vit", pos_embed="none", scale_attn_norm=True)
    with pytest.raises(CheckpointError, match=r"options that flaim's does not have: pos_embed='none', scale_attn"):
        get_model(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list, expected an object"),
        ("{}", "describes no model that flaim knows"),
        ('{"architecture": "resnet5o"}', "no architecture called 'resnet5o'; did you mean resnet50"),
        ('{"architecture": "resnet18", "pretrained_cfg": {"mean": 3}}', "incomplete or malformed"),
        ('{"format": "flaim", "model": "resnet18"}', "incomplete or malformed: KeyError 'format_version'"),
        (
            '{"format": "flaim", "format_version": 9, "model": "resnet18"}',
            "has version 9 of flaim's format, .* upgrade flaim",
        ),
    ],
)
def test_bad_configuration(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        get_model(f"local-dir:{tmp_path}")


def test_folder_without_weights(saved, tmp_path):
    _, folder = saved("test_resnet")
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "tf_model.ot").touch()
    with pytest.raises(
        FileNotFoundError, match=r"has none of model\.safetensors, .*; it has config\.json, tf_model\.ot"
    ):
        get_model(f"local-dir:{tmp_path}")


def test_weights_that_are_nowhere():
    with pytest.raises(
        CatalogueError,
        match=r"no repository is known to have hornet_tiny in1k_224 .*the original is https://cloud\.tsinghua\.edu\.cn/",
    ):
        get_model("hornet_tiny")
