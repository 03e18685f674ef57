"""Models as StableHLO and ONNX, and the command that writes them."""

import json
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from flaim import export, models
from flaim.checkpoints import DIGITS
from flaim.cli import app
from flaim.data import load_digits
from flaim.weights import load
from tests.oracle import relative_error
from tests.small import case, images, randomised, small

NORM_STATS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def onnx_outputs(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.asarray(x)})[0]


def flaim(*args):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["export", *map(str, args)], prog_name="flaim")


@pytest.mark.parametrize("family", models.families())
def test_onnx(family, tmp_path):
    model, variables, x, expected = case(family)
    (path,) = export.save_onnx(export.to_onnx(model, variables), tmp_path / "model.onnx")
    for n in (1, 3):
        assert relative_error(onnx_outputs(path, x[:n]), expected[:n]) < 1e-4


@pytest.mark.parametrize("batch", [None, 2])
def test_normalisation_inside(batch, tmp_path):
    model = small("resnetv2")
    variables = randomised(model)
    x = np.random.default_rng(0).random((2, *model.input_size, 3), np.float32)
    mean, std = (np.asarray(NORM_STATS[name], np.float32) for name in ("mean", "std"))
    expected = model.apply(variables, (x - mean) / std).value

    graph = export.to_onnx(model, variables, batch=batch, norm_stats=NORM_STATS)
    (path,) = export.save_onnx(graph, tmp_path / "model.onnx")
    assert relative_error(onnx_outputs(path, x), expected) < 1e-4
    program = export.to_stablehlo(model, variables, batch=batch, norm_stats=NORM_STATS)
    path, beside = export.save_stablehlo(program, tmp_path / "model.stablehlo", export.describe(model))
    assert relative_error(jax.export.deserialize(path.read_bytes()).call(x), expected) < 1e-5
    assert json.loads(beside.read_text())["input_size"] == list(model.input_size)


def test_large_weights_go_beside_the_graph(tmp_path, monkeypatch):
    model = small("resnetv2")
    variables = randomised(model)
    graph = export.to_onnx(model, variables)
    monkeypatch.setattr("flaim.export._onnx._MOST_BYTES", 1000)
    path, data = export.save_onnx(graph, tmp_path / "model.onnx")
    assert data.name == "model.onnx.data" and data.stat().st_size > path.stat().st_size
    assert relative_error(onnx_outputs(path, images(model)), model.apply(variables, images(model)).value) < 1e-4
    monkeypatch.setattr("flaim.export._stablehlo._MOST_BYTES", 1000)
    with pytest.raises(export.ExportError, match="no more than 2 GB"):
        export.to_stablehlo(model, variables)


@pytest.fixture(scope="module")
def digits():
    """Scans of digits of the model's size, 32x32, with values from 0 to 1."""
    images = load_digits("held_out").images[:5].repeat(4, axis=1).repeat(4, axis=2)
    return (images / 255).astype(np.float32)


def test_command_onnx(digits, tmp_path):
    path = tmp_path / "made" / "digits.onnx"
    result = flaim(DIGITS, path, "--to", "onnx", "--normalise")
    assert result.exit_code == 0, result.output
    for words in ("(batch, 32, 32, 1), 0 to 1", "10 class names", str(path)):
        assert words in result.stdout
    checkpoint = load(DIGITS)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list(checkpoint.config.labels)
    assert facts["range"] == "0 to 1" and facts["license"] == checkpoint.config.license
    assert json.loads(facts["mean"]) == list(checkpoint.config.preprocessing.mean)
    model, variables, norm_stats = models.get_model(DIGITS)
    mean, std = (np.asarray(norm_stats[name], np.float32) for name in ("mean", "std"))
    expected = model.apply(variables, (digits - mean) / std).value
    assert relative_error(session.run(None, {"images": digits})[0], expected) < 1e-4


def test_command_stablehlo_in_a_shell(digits, tmp_path):
    path = tmp_path / "digits.stablehlo"
    command = [sys.executable, "-m", "flaim", "export", DIGITS, path, "--to", "stablehlo", "--batch", "5"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "jax.export.deserialize" in done.stdout
    facts = json.loads((tmp_path / "digits.stablehlo.json").read_text())
    assert facts["range"] == "normalised" and len(facts["labels"]) == 10
    program = jax.export.deserialize(path.read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu") and program.in_avals[0].shape[0] == 5
    model, variables, norm_stats = models.get_model(DIGITS)
    mean, std = (np.asarray(norm_stats[name], np.float32) for name in ("mean", "std"))
    x = (digits - mean) / std
    assert relative_error(program.call(x), model.apply(variables, x).value) < 1e-5


def test_errors(tmp_path, monkeypatch):
    def assert_fails(result, code, *words):
        assert result.exit_code == code and result.stdout == "" and result.stderr.startswith("error: ")
        assert all(word in result.stderr for word in words), result.stderr

    path = tmp_path / "model"
    assert_fails(flaim(DIGITS, path, "--to", "tflite"), 2, "onnx", "stablehlo")
    assert_fails(flaim(DIGITS, tmp_path, "--to", "onnx"), 2, "is a folder")
    assert_fails(flaim(DIGITS, path, "--to", "onnx", "--input-size", "big"), 2, "224x288")
    assert_fails(flaim("resnet5O", path, "--to", "onnx"), 2, "resnet5O")
    (tmp_path / "there").write_text("mine")
    assert_fails(flaim(DIGITS, tmp_path / "there", "--to", "onnx"), 2, "--force")
    assert_fails(flaim(DIGITS, tmp_path / "there" / "model", "--to", "onnx"), 1, "there")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_fails(flaim(DIGITS, path, "--to", "onnx"), 1, 'pip install "flaim[onnx]"')
    assert not path.exists()


def test_models_without_class_names_say_so():
    facts = export.describe(small("resnetv2"))
    assert facts["n_classes"] == 7 and "labels" not in facts
    assert "n_classes" not in export.describe(small("resnetv2", n_classes=-1))
