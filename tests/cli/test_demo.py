"""The embedded checkpoint, the script that trains it, and `flaim demo`."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import flaim.adapters
from flaim.checkpoints import DIGITS
from flaim.cli import app
from flaim.data import Preprocess, load_digits
from flaim.weights import get_model, resolve

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("Flax Linen", "Flax NNX", "Equinox", "Haiku")


def accuracies(output: str) -> dict[str, float]:
    """Accuracy in percent by framework, from the demo's table."""
    return {name: float(value) for name, value in re.findall(r"^(\S.*?) +\d+ of 355 +([\d.]+)%", output, re.MULTILINE)}


def test_split_is_complete_disjoint_and_stratified():
    parts = [load_digits(part) for part in ("train", "validation", "held_out")]
    everything = load_digits("train", "validation", "held_out")
    np.testing.assert_array_equal(np.sort(np.concatenate([part.indices for part in parts])), np.arange(1797))
    np.testing.assert_array_equal(everything.indices, np.arange(1797))
    totals = np.bincount(everything.labels)
    for part, share in zip(parts, (0.7, 0.1, 0.2)):
        assert np.all(np.abs(np.bincount(part.labels) - share * totals) < 2)
    assert everything.images.dtype == np.uint8
    assert (everything.images.min(), everything.images.max()) == (0, 255)


def test_unknown_part_of_the_digits():
    with pytest.raises(ValueError, match=r"no part test; they have train, validation, held_out"):
        load_digits("test")


def test_checkpoint_is_small_and_right():
    assert sum(file.stat().st_size for file in DIGITS.iterdir()) < 400_000
    config = resolve(DIGITS)
    assert config.labels == tuple("0123456789")
    assert config.license == "Apache-2.0"
    model, variables, norm_stats = get_model(DIGITS)
    assert norm_stats == {"mean": config.preprocessing.mean, "std": config.preprocessing.std}
    scans = load_digits("held_out")
    logits = model.apply(variables, Preprocess.from_row(config.preprocessing)(scans.images)).value
    accuracy = np.mean(np.argmax(logits, -1) == scans.labels)
    assert accuracy >= 0.98
    assert f"{accuracy:.2%} of the held-out digits" in config.note


@pytest.mark.usefixtures("lenient")
def test_training_script(tmp_path, capsys):
    script = runpy.run_path(str(ROOT / "examples" / "train_digits.py"))
    script["main"](tmp_path / "digits", epochs=1)
    table = capsys.readouterr().out
    assert all(part in table for part in ("train", "validation", "held out"))
    model, variables, _ = get_model(tmp_path / "digits")
    published, _, _ = get_model(DIGITS, pretrained=False)
    assert model == published
    assert np.isfinite(model.apply(variables, np.zeros((1, 32, 32, 1), np.float32)).value).all()


def test_demo(tmp_path):
    command = [sys.executable, "-m", "flaim", "demo", "--output", "digits.png"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    right = accuracies(run.stdout)
    assert list(right) == ["JAX alone", *FRAMEWORKS]
    assert min(right.values()) >= 98
    difference, largest = re.search(r"two frameworks' logits: (\S+) \(the largest is (\S+)\)", run.stdout).groups()
    assert float(difference) <= 1e-5 * float(largest)
    with Image.open(tmp_path / "digits.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(100_000)) > 50


def test_demo_without_haiku(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "haiku", None)
    for module in [name for name in sys.modules if name.startswith("flaim.adapters.haiku")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(flaim.adapters, "haiku", raising=False)
    run = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "digits.png")])
    assert run.exit_code == 0
    assert list(accuracies(run.stdout)) == ["JAX alone", *FRAMEWORKS[:3]]
    assert re.search(r'^Haiku is left out: .*pip install "flaim\[haiku\]"$', run.stdout, re.MULTILINE)


@pytest.mark.parametrize(("module", "forget"), [("sklearn", ()), ("matplotlib.figure", ("flaim.cli._drawing",))])
def test_demo_without_what_it_needs(module, forget, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for name in forget:
        monkeypatch.delitem(sys.modules, name, raising=False)
    run = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "digits.png")])
    assert run.exit_code == 1
    assert "pip install 'flaim[demo]'" in run.stderr
    assert run.stdout == ""


def test_demo_into_a_folder_that_is_not_there(tmp_path):
    run = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "nowhere" / "digits.png")])
    assert run.exit_code == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in run.stderr
