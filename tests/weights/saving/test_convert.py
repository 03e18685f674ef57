"""`flaim convert`, and that timm takes back what it gives: names, layouts, buffers, configuration."""

import json
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import flaim.models
import flaim_core as core
from flaim.cli import app
from flaim.models import create
from flaim.weights import CheckpointError, load, save_pretrained
from flaim.weights.saving import to_timm, writer
from flaim.weights.saving.convert import convert
from tests import oracle
from tests.oracle import timm

TIMM = {
    "test_resnet": {"num_classes": 7},
    "test_convnext": {"in_chans": 1},
    "test_efficientnet": {"num_classes": 0},
    "test_maxvit": {"img_size": (64, 96)},
    "test_vit": {"img_size": 64, "global_pool": "avg", "reg_tokens": 2, "init_values": 0.1, "depth": 1},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 24,
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 4, 8),
        "num_classes": 5,
        "img_size": 128,
    },
    "swinv2_tiny_window8_256": {
        "embed_dim": 16,
        "depths": (1, 1),
        "num_heads": (1, 2),
        "window_size": ((4, 8), (4, 4)),
        "pretrained_window_sizes": (6, 3),
        "img_size": 64,
    },
    "davit_tiny": {
        "embed_dims": (8, 16),
        "depths": (1, 1),
        "num_heads": (1, 2),
        "named_blocks": True,
        "channel_attn_v2": True,
    },
}


def bits(folder) -> dict[str, tuple]:
    return {name: (v.dtype, v.shape, v.tobytes()) for name, v in load_file(folder / "model.safetensors").items()}


def save_for_timm(name: str, folder, **options):
    reference = oracle.create(name, **options)
    timm.models.save_for_hf(reference, folder, safe_serialization=True, model_args=options)
    return reference


@pytest.mark.parametrize(("name", "options"), TIMM.items(), ids=TIMM)
def test_timm_to_flaim_to_timm_to_flaim(name, options, tmp_path):
    reference = save_for_timm(name, tmp_path / "timm", **options)
    report = convert(tmp_path / "timm", tmp_path / "flaim")
    assert report.difference == 0 and not report.fresh
    assert report.leaves == len(load_file(tmp_path / "flaim" / "model.safetensors"))
    assert report.files == (tmp_path / "flaim" / "model.safetensors",)
    assert report.dtypes == {"float32": sum(p.numel() * 4 for p in floats(reference))}

    assert convert(tmp_path / "flaim", tmp_path / "again", "timm").difference == 0
    state = reference.state_dict()
    reference.load_state_dict(
        {k: torch.from_numpy(v) for k, v in load_file(tmp_path / "again" / "model.safetensors").items()}, strict=True
    )
    found = timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True).eval()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(found.state_dict()[key], value) for key, value in state.items())
    first, again = (
        json.loads((tmp_path / folder / "config.json").read_text())["pretrained_cfg"] for folder in ("timm", "again")
    )
    keys = {*["mean", "std", "interpolation", "crop_pct", "crop_mode", "num_classes", "first_conv", "classifier"]}
    if name != "test_vit":  # for which timm forgets its size
        keys |= {"input_size", "fixed_input_size"}
    assert {key: again.get(key) for key in keys} == {key: first.get(key) for key in keys}

    convert(tmp_path / "again", tmp_path / "back")
    assert bits(tmp_path / "back") == bits(tmp_path / "flaim")
    assert load(tmp_path / "back").config.replace(path=None) == load(tmp_path / "flaim").config.replace(path=None)


def floats(module) -> list:
    return [value for value in module.state_dict().values() if value.is_floating_point()]


def test_timm_adapts_what_it_gets(tmp_path):
    """The classifier and the first convolution are named as timm needs it for other classes and channels."""
    save_for_timm("test_resnet", tmp_path / "timm")
    convert(tmp_path / "timm", tmp_path / "again", "timm")
    for folder in ("timm", "again"):
        torch.manual_seed(0)
        model = timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True, num_classes=3, in_chans=1)
        state = model.state_dict()
        if folder == "timm":
            expected = state
    assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A checkpoint of flaim's own, in bfloat16 and float32, with all there is to know of it."""
    folder = tmp_path_factory.mktemp("own")
    model = create("test_resnet", n_classes=3, input_size=32)
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    types = (jnp.bfloat16, jnp.float32)
    variables = tree.unflatten([jnp.asarray(rng.standard_normal(v.shape), types[i % 2]) for i, v in enumerate(leaves)])
    preprocessing = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0), "interpolation": "bilinear", "crop_pct": 0.9}
    preprocessing |= {"crop_mode": "border", "test_input_size": (64, 64), "test_crop_pct": 1.0}
    save_pretrained(folder, model, variables, preprocessing=preprocessing, labels=["a", "b", "c"], license="mit")
    return folder


def test_flaim_to_timm_to_flaim(own, tmp_path):
    convert(own, tmp_path / "timm", "timm")
    tensors = load_file(tmp_path / "timm" / "model.safetensors")
    assert {str(value.dtype) for value in tensors.values()} == {"float32", "bfloat16", "int64"}
    report = convert(tmp_path / "timm", tmp_path / "flaim")
    assert report.dtypes.keys() == {"float32", "bfloat16"}
    assert bits(tmp_path / "flaim") == bits(own)
    assert load(tmp_path / "flaim").config.replace(path=None) == load(own).config.replace(path=None)
    assert convert(own, tmp_path / "shards", max_shard_size=100_000).difference == 0
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2


def test_double_precision_becomes_single(own, tmp_path):
    convert(own, tmp_path / "timm", "timm")
    file = tmp_path / "timm" / "model.safetensors"
    tensors = {name: np.asarray(value.astype(np.float64) + 1e-10) for name, value in load_file(file).items()}
    save_file(tensors, file)
    report = convert(tmp_path / "timm", tmp_path / "flaim")
    assert report.dtypes.keys() == {"float32"}
    assert 0 < report.difference < 1e-6


def test_leaves_that_the_source_lacks(tmp_path):
    """ConvNeXt V2's masked autoencoders end before the final norm."""
    reference = save_for_timm("test_convnext", tmp_path / "timm", num_classes=0)
    file = tmp_path / "timm" / "model.safetensors"
    norm = {"head.norm.weight", "head.norm.bias"}
    save_file({name: value for name, value in oracle.state(reference).items() if name not in norm}, file)
    report = convert(tmp_path / "timm", tmp_path / "flaim")
    assert set(report.fresh) == {"params/head/norm/scale", "params/head/norm/bias"}
    assert report.leaves + 2 == len(load_file(tmp_path / "flaim" / "model.safetensors"))


def test_memory(tmp_path):
    """Nothing of the model but one leaf is in memory; mapped files come and go."""
    model = create("resnet10t", n_classes=10, input_size=32)
    leaves = {path: np.full(leaf.shape, 1.5, np.float32) for path, leaf in core.flatten(model.spec()).items()}
    save_pretrained(tmp_path / "a", model, core.unflatten(leaves))
    largest, total = max(v.nbytes for v in leaves.values()), sum(v.nbytes for v in leaves.values())
    del leaves
    for source, to in (("a", "timm"), ("timm", "flaim")):
        tracemalloc.start()
        convert(tmp_path / source, tmp_path / to, to)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.9 * largest and largest < total / 2


# What timm lacks


def test_models_that_timm_lacks(own, tmp_path):
    model = create("test_resnet", n_classes=0)
    save_pretrained(tmp_path / "features", model, model.init(jax.random.key(0)))
    with pytest.raises(CheckpointError, match="timm has no test_resnet that ends before its head"):
        convert(tmp_path / "features", tmp_path / "timm", "timm")
    model = create("test_resnet", n_classes=3, widths=(16, 24, 24, 32), depths=(1, 1, 1, 2))
    save_pretrained(tmp_path / "narrow", model, model.init(jax.random.key(0)))
    with pytest.raises(CheckpointError, match=r"timm's test_resnet has no options for .*widths=.*16"):
        convert(tmp_path / "narrow", tmp_path / "timm", "timm")
    fused, variables = flaim.models.fuse(*(lambda m: (m, m.init(jax.random.key(0))))(create("test_resnet")))
    save_pretrained(tmp_path / "fused", fused, variables)
    with pytest.raises(CheckpointError, match="timm has no fused test_resnet"):
        convert(tmp_path / "fused", tmp_path / "timm", "timm")
    assert not (tmp_path / "timm").exists()


def test_a_check_that_fails(own, tmp_path, monkeypatch):
    """Were a number written wrong, the conversion would say where."""
    numbers = writer.Tensor.numbers

    def wrong(tensor):
        array = numbers(tensor)
        return array + array.dtype.type(1) if array.shape == (3,) else array

    monkeypatch.setattr(writer.Tensor, "numbers", wrong)
    with pytest.raises(CheckpointError, match=r"does not hold what was written to it:\n  params/fc/bias$"):
        convert(own, tmp_path / "x")


def test_names_and_layouts_there_and_back():
    """Every layout turns back into itself."""
    model = create("test_vit", n_classes=3)
    arrays = {p: np.arange(np.prod(v.shape)).reshape(v.shape) for p, v in core.flatten(model.spec()).items()}
    tensors = to_timm.tensors(model, arrays)
    assert tensors["head.weight"].shape == (3, 64)
    assert np.array_equal(tensors["head.weight"].numbers(), arrays["params/head/kernel"].T)
    kernel = arrays["params/patch_embed/proj/kernel"]
    assert np.array_equal(tensors["patch_embed.proj.weight"].numbers(), kernel.transpose(3, 2, 0, 1))


# The command


def run(*args):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["convert", *map(str, args)], prog_name="flaim")


def assert_fails(result, *words):
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr, result.stderr


def test_command(own, tmp_path):
    result = run(own, tmp_path / "timm", "--to", "timm")
    assert result.exit_code == 0, result.output
    lines = [line.split(None, 1) for line in result.stdout.splitlines()]
    facts = {name: text.strip() for name, text in lines}
    assert facts["model"] == "test_resnet"
    assert facts["converted"] == f"{len(load_file(own / 'model.safetensors'))} leaves"
    assert facts["dtype"] == "bfloat16, float32, int64"
    tensors = load_file(tmp_path / "timm" / "model.safetensors")
    assert facts["bytes"] == f"{sum(value.nbytes for value in tensors.values()):,}"
    assert facts["check"].startswith("largest difference from the source 0,")
    assert facts["written"] == str(tmp_path / "timm" / "model.safetensors")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["label_names"] == ["a", "b", "c"]


def test_command_into_a_folder_that_is_not_empty(own, tmp_path):
    target = tmp_path / "target"
    shutil.copytree(own, target)
    (target / "notes.txt").touch()
    assert_fails(run(own, target, "--to", "timm"), "target is not empty; --force replaces the checkpoint")
    assert bits(target) == bits(own)
    result = run(own, target, "--to", "timm", "--force")
    assert result.exit_code == 0, result.output
    assert (target / "notes.txt").exists() and "fc.weight" in load_file(target / "model.safetensors")
    assert run(target, target, "--force").exit_code == 0  # onto itself
    assert bits(target) == bits(own)


def test_command_errors(own, tmp_path):
    assert_fails(run(own, tmp_path / "x", "--to", "keras"), "'keras'", "flaim", "timm")
    assert_fails(run(own), "Missing argument 'DEST'")
    assert_fails(run(tmp_path / "nowhere", tmp_path / "x"), "no folder or file", "nowhere")
    assert_fails(run(own, tmp_path / "x.safetensors"), "x.safetensors is a file by its name")
    (tmp_path / "file").touch()
    assert_fails(run(own, tmp_path / "file"), "is a file by its name")
    broken = tmp_path / "broken"
    shutil.copytree(own, broken)
    (broken / "model.safetensors").write_bytes((own / "model.safetensors").read_bytes()[:-4])
    assert_fails(run(broken, tmp_path / "x"), "not an intact safetensors file")
    (tmp_path / "garbage.pth").write_bytes(b"no checkpoint")
    assert_fails(run(tmp_path / "garbage.pth", tmp_path / "x"), "garbage.pth")
    assert not (tmp_path / "x").exists()
