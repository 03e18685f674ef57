"""The benchmarks, as a user runs them, on a model of a few layers."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from benchmarks import harness


@pytest.fixture(scope="module")
def results():
    contenders = ["flaim", "flaim:linen", "flaim:nnx", "flaim:eqx", "flaim:haiku", "timm:eager", "timm:channels_last"]
    return harness.measure(contenders, "test_resnet", "forward", 1, seconds=0.1)


def printed(table):
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_contenders_take_turns_and_tell_their_costs(results):
    for result in results:
        assert result.error is None and len(result.times) >= 5 and 0 < result.median < result.costs["first_call_s"] + 1
        assert result.costs["load_s"] > 0 and result.costs["peak_mb"] > result.costs["step_mb"] >= 0


def test_the_table_fits_a_terminal(results):
    shown = printed(harness.table({"swin_tiny_patch4_window7_224": results[:1] + results[5:]}, "forward"))
    assert "swin_tiny_patch4_window7_224" in shown and f"{harness.ratio(results):.2f}" in shown and "…" not in shown


def test_a_contender_that_fails_is_reported():
    results = harness.measure(["flaim", "timm:eager"], "no_such_model", "forward", 1)
    assert all("no_such_model" in result.error for result in results)
    assert printed(harness.table({"no_such_model": results}, "forward")).count("failed") == 2


def test_the_command_writes_figures_and_a_plot(tmp_path):
    output = tmp_path / "cpu.json"
    options = ["--task", "forward1", "--no-adapters", "--seconds", "0.1"]
    command = [sys.executable, "-m", "benchmarks.cpu", "test_resnet", *options]
    run = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, cwd=harness.ROOT)
    assert run.returncode == 0, run.stderr
    assert "GFLOP/s" in run.stdout and "test_resnet" in run.stdout
    report = json.loads(output.read_text())
    assert {r["contender"] for r in report["results"] if not r["error"]} == {
        "flaim",
        "timm:eager",
        "timm:channels_last",
        "timm:compile",
    }
    assert report["machine"]["matmul_flops"] > 0
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_task_is_refused():
    command = [sys.executable, "-m", "benchmarks.cpu", "--task", "backward"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=harness.ROOT)
    assert run.returncode == 2 and "forward8" in run.stderr
