"""`flaim inspect`: what is in files of every format, and what they are taken for."""

import json
import re

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from typer.testing import CliRunner

from flaim.checkpoints import DIGITS
from flaim.cli import app
from flaim.models import create
from flaim.weights import formats, save_pretrained
from tests.weights.formats import containers


def run(*args, columns: int | None = 160):
    env = {} if columns is None else {"COLUMNS": str(columns)}
    return CliRunner(env=env).invoke(app, ["inspect", *map(str, args)], prog_name="flaim")


def facts(output: str) -> dict[str, str]:
    """The lines before the table, by name."""
    head = output.split("\n\n")[0]
    return dict(re.findall(r"^(\w+) +(.*?) *$", head, re.MULTILINE))


def rows(output: str) -> dict[str, list[str]]:
    """The table's lines, by the tensor's name."""
    lines = output.split("\n\n", 1)[1].splitlines()
    assert lines[0].split() == ["tensor", "shape", "dtype", "bytes"]
    return {line.split()[0]: line.split()[1:] for line in lines[1:]}


@pytest.mark.parametrize("write", containers.FORMATS, ids=lambda write: write.__name__)
def test_every_format(write, tmp_path):
    path = tmp_path / "file"
    write(path)
    result = run(path)
    assert result.exit_code == 0, result.output
    found = facts(result.stdout)
    assert found["format"].startswith(formats.FORMATS[containers.FORMATS[write]])
    assert found["tensors"].startswith("4, of 324 bytes (float32 304, float16 12, int64 8)")
    assert found["model"].startswith("no model: ")
    assert rows(result.stdout) == {
        "stem/kernel": ["3x3x2x4", "float32", "288"],
        "stem/bias": ["4", "float32", "16"],
        "head/half": ["2x3", "float16", "12"],
        "head/steps": ["-", "int64", "8"],
    }


def test_no_numbers_are_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    containers.npz_compressed(path)
    monkeypatch.setattr(formats.LazyArray, "__array__", None)
    monkeypatch.setattr(formats._zip.Archive, "unpack", None)
    assert run(path).exit_code == 0


def test_own_format(tmp_path):
    model = create("test_resnet", n_classes=3, input_size=(32, 64), widths=(16, 16, 16, 16))
    save_pretrained(tmp_path, model, model.init(jax.random.key(0)), license="mit", max_shard_size=20_000)
    found = facts(run(tmp_path).stdout)
    assert found["names"] == "flaim" and found["model"] == "test_resnet (family resnet)"
    assert found["classes"] == "3" and found["images"] == "32x64 pixels, channels: 3" and found["license"] == "mit"
    assert found["changes"] == "widths=[16, 16, 16, 16]"
    assert re.fullmatch(r"index of sharded checkpoints, \d files", found["format"])
    assert facts(run(DIGITS).stdout)["classes"] == "10"


def test_transformers_folder(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    from tests import oracle  # noqa: F401 -- transformers imports torchvision

    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    result = run(tmp_path)
    found = facts(result.stdout)
    assert found["names"] == "transformers" and "family vit" in found["model"] and found["classes"] == "2"
    assert rows(result.stdout)["vit.embeddings.cls_token"] == ["1x1x32", "float32", "128"]


def test_file_of_no_model(tmp_path):
    torch.save({"a": torch.zeros(2, 3), "b": 1}, tmp_path / "a.pth")
    result = run(tmp_path / "a.pth")
    assert result.exit_code == 0
    assert facts(result.stdout)["model"].startswith("no model: ")
    assert rows(result.stdout) == {"a": ["2x3", "float32", "24"]}


def test_configuration_of_no_model(tmp_path):
    """The tensors are shown even if the configuration is of something else."""
    save_file({"a": np.ones(2, "f4")}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    result = run(tmp_path)
    assert "bert" in facts(result.stdout)["model"]
    assert rows(result.stdout) == {"a": ["2", "float32", "8"]}


def test_long_lists_are_complete_in_a_pipe(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    names = [f"a.rather.long.name.of.a.tensor.{'x' * 100}.{i}" for i in range(1200)]
    save_file({name: np.ones(2, "f4") for name in names}, tmp_path / "a.safetensors")
    found = rows(run(tmp_path / "a.safetensors", columns=None).stdout)
    assert found == {name: ["2", "float32", "8"] for name in names}


def test_names_cannot_command_the_terminal(tmp_path):
    save_file({"\x1b[2J[bold]a": np.ones(2, "f4"), "[red]b[/]": np.ones(2, "f4")}, tmp_path / "a.safetensors")
    output = run(tmp_path / "a.safetensors").stdout
    assert "\x1b" not in output and r"'\x1b[2J[bold]a'" in output and "[red]b[/]" in output


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no folder or file"), (b"", "is empty"), (b"nothing", "none of the formats")]
)
def test_errors(content, message, tmp_path):
    path = tmp_path / "a.h5"
    if content is not None:
        path.write_bytes(content)
    result = run(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1
