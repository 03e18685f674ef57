"""The `flaim` command as a user runs it; `flaim demo` has tests of its own."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import flaim
import flaim.adapters
from flaim.checkpoints import DIGITS
from flaim.cli import app
from flaim.data import load_digits
from flaim.weights import list_models, rows
from tests import hub_server


def run(*args: str, columns: int = 80):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, list(map(str, args)), prog_name="flaim")


def assert_fails(result, code: int, *words: str):
    """One line on stderr that says what is wrong; nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Files of the first held-out zero, one and two."""
    folder = tmp_path_factory.mktemp("scans")
    digits = load_digits("held_out")
    paths = []
    for digit in range(3):
        index = int(np.argmax(digits.labels == digit))
        paths.append(folder / f"{digit}.png")
        Image.fromarray(digits.images[index, :, :, 0]).save(paths[-1])
    return paths


def best(output: str) -> list[str]:
    """The likeliest class of every image: the line after its name."""
    return re.findall(r"\.png\n +[\d.]+% +(\w+)", output)


def test_help_is_what_flaim_alone_prints():
    alone, asked = run(), run("--help")
    assert alone.exit_code == asked.exit_code == 0
    assert alone.stdout.rstrip() == asked.stdout.rstrip()
    assert all(command in alone.stdout for command in ("demo", "list", "info", "predict", "--version"))
    assert max(map(len, alone.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", ["demo", "list", "info", "predict"])
def test_every_command_has_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: flaim {command}" in result.stdout


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "flaim")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, flaim.cli; print([m for m in ('jax', 'numpy', 'flax', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_list_prints_every_pair():
    result = run("list", columns=200)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "parameters", "size", "top-1", "params", "GMACs", "license"]
    pairs = list_models()
    assert [tuple(line.split()[:2]) for line in lines[1 : len(pairs) + 1]] == pairs
    assert result.stdout.count("(non-commercial)") == sum(
        row.non_commercial for row in rows(timm=False) if (row.model, row.params) in pairs
    )
    assert f"{len(pairs)} checkpoints of {len({model for model, _ in pairs})} models" in result.stdout


def test_list_narrows_down():
    assert "resnet50 " in run("list", "^resnet50$").stdout
    assert "wide_resnet" not in run("list", "^resnet50$").stdout
    lines = run("list", "^resnet50$", "--params", "sl_ft", "--size", "224", columns=160).stdout.splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["ssl_ft_in1k_224", "swsl_ft_in1k_224"]
    assert "(non-commercial)" in lines[1]
    assert "2 checkpoints of 1 model, 2 not for commercial use" in lines[-1]
    assert "a1_in1k" in run("list", "^resnet50$", "--timm").stdout


def test_list_by_figures():
    """Accuracies and sizes are those of resnet18.a1_in1k and its like in timm's results and papers."""
    lines = run("list", "^resnet(18|34|50)$", "--sort", "top1", columns=160).stdout.splitlines()[1:]
    rows = [line.split() for line in lines[: lines.index("")]]
    accuracies = [float(row[3]) if row[3] != "-" else 0.0 for row in rows]
    assert accuracies == sorted(accuracies, reverse=True) and accuracies[0] == 81.15
    small = run("list", "^resnet(18|34|50)$", "--max-params", "22M", "--sort", "params", columns=160).stdout
    assert "resnet18 " in small and "21.8M" in small and "resnet50 " not in small
    assert "resnet50 " not in run("list", "^resnet(18|50)$", "--max-gmacs", "2").stdout
    assert "resnet18 " not in run("list", "^resnet(18|50)$", "--min-top1", "80").stdout
    assert_fails(run("list", "--max-params", "many"), 2, "'many' is not a number such as 30M")
    assert_fails(run("list", "^resnet50$", "--min-top1", "99"), 2, "--min-top1 99")


def test_list_says_what_is_missing():
    known = set(list_models(timm=True))
    for absent in {row.model for row in rows() if (row.model, row.params) not in known}:
        output = run("list", absent, "--timm", columns=160).stdout
        assert re.search(rf"1 checkpoint of 1 model not implemented yet: {absent}$", output, re.MULTILINE)


def test_list_says_where_there_is_more():
    assert_fails(run("list", "davit_base_fl"), 2, "no checkpoint fits model 'davit_base_fl'; timm's do: add --timm")


def test_list_is_not_folded_in_a_pipe(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    output = CliRunner().invoke(app, ["list", "vit", "--timm"]).stdout
    assert re.search(r"^vit_gigantic_patch14_clip_quickgelu_224 +\S+ +224 +\S+", output, re.MULTILINE)


def test_list_errors():
    assert_fails(run("list", "no_such_model"), 2, "'no_such_model'", "(flaim list --help)")
    assert_fails(run("list", "("), 2, "'(' is not a regular expression")


def test_info():
    result = run("info", "resnet50", columns=160)
    assert result.exit_code == 0
    text = result.stdout
    assert "25,557,032" in text
    assert re.search(r"GMACs +4\.09 ", text)  # timm's count, too; the paper's 3.8 is of v1
    assert "80.38 % @224 (top-5 94.60 %)" in run("info", "resnet50.a1_in1k", columns=160).stdout
    assert re.search(r"^stage_4 +2048 +32$", text, re.MULTILINE)
    assert re.search(r"^resnet50 in1k_224 +224 +1000 +80\.38 @224 +\S+", text, re.MULTILINE)
    assert re.search(r"^resnet50.a1_in1k +224 +1000 +80\.38 @224 +apache-2.0", text, re.MULTILINE)
    assert "cc-by-nc-4.0 (non-commercial)" in text


def test_info_of_chosen_parameters():
    assert "swsl_ft_in1k_224" in run("info", "resnet50", "--params", "swsl_ft_in1k_224").stdout.splitlines()[0]
    assert "resnet50 a1_in1k" in run("info", "resnet50.a1_in1k").stdout.splitlines()[0]
    assert "in1k_224" in run("info", "resnet50", "--params", "224").stdout.splitlines()[0]


def test_info_of_a_folder():
    text = run("info", DIGITS, columns=120).stdout
    assert "71,410" in text
    assert "32x32 pixels, 1 channel" in text
    assert "Apache-2.0" in text


def test_info_errors(tmp_path):
    assert_fails(run("info", "resnet500"), 2, "'resnet500'", "did you mean", "resnet50")
    assert_fails(run("info", "resnet50", "--params", "999"), 2, "resolution 999", "in1k_224")
    assert_fails(run("info", tmp_path / "nowhere"), 2, "no folder or file")
    assert_fails(run("info"), 2, "Missing argument", "(flaim info --help)")


@pytest.mark.parametrize("framework", ["jax", "linen", "nnx", "eqx", "haiku"])
def test_predict(framework, scans):
    result = run("predict", *scans, "--model", DIGITS, "--framework", framework, "--top", 3)
    assert result.exit_code == 0, result.output
    assert best(result.stdout) == ["0", "1", "2"]
    assert result.stdout.count("%") == 9
    assert result.stderr == ""


def test_predict_goes_on_after_a_file_that_is_no_image(scans, tmp_path):
    wrong = tmp_path / "notes.txt"
    wrong.write_text("not an image")
    result = run("predict", scans[0], wrong, scans[2], "--model", DIGITS)
    assert result.exit_code == 2
    assert best(result.stdout) == ["0", "2"]
    assert result.stderr.count("\n") == 1
    assert f"{wrong}: not an image" in result.stderr


def test_predict_errors(scans, tmp_path, monkeypatch):
    assert_fails(run("predict", tmp_path / "none.png", "-m", DIGITS), 2, "none.png", "does not exist")
    assert_fails(run("predict", scans[0]), 2, "--model")
    assert_fails(run("predict", scans[0], "-m", DIGITS, "-f", "torch"), 2, "'torch'", "linen", "haiku")
    assert_fails(run("predict", scans[0], "-m", DIGITS, "-k", "0"), 2, "--top")
    assert_fails(run("predict", scans[0], "-m", "resnet500"), 2, "did you mean")

    corrupt = tmp_path / "corrupt"
    corrupt.mkdir()
    (corrupt / "config.json").write_bytes((DIGITS / "config.json").read_bytes())
    (corrupt / "model.safetensors").write_bytes((DIGITS / "model.safetensors").read_bytes()[:1000])
    assert_fails(run("predict", scans[0], "-m", corrupt), 2, "not an intact safetensors file")

    monkeypatch.setitem(sys.modules, "haiku", None)
    for module in [name for name in sys.modules if name.startswith("flaim.adapters.haiku")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(flaim.adapters, "haiku", raising=False)
    assert_fails(run("predict", scans[0], "-m", DIGITS, "-f", "haiku"), 1, 'pip install "flaim[haiku]"')


def test_unknown_command_and_option():
    assert_fails(run("predcit"), 2, "predcit", "predict")
    assert_fails(run("--verbose"), 2, "--verbose")


def test_predict_from_the_hub(scans, tmp_path):
    """The installed command against a hub: a download, then one that is refused."""
    with hub_server.serve() as hub:
        hub.add("flaim/digits", DIGITS)
        command = [sys.executable, "-m", "flaim", "predict", *map(str, scans), "--model"]
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        found = subprocess.run([*command, "hf-hub:flaim/digits"], env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert best(found.stdout) == ["0", "1", "2"]
        absent = subprocess.run([*command, "hf-hub:flaim/nothing"], env=environment, capture_output=True, text=True)
        assert absent.returncode == 1
        assert absent.stdout == ""
        assert absent.stderr.startswith("error: there is no repository 'flaim/nothing'")
