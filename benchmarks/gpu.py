"""`python -m benchmarks.gpu`: flaim beside timm (channels-last autocast, compiled) on a GPU, in bfloat16.

Prints a table for each task, writes `benchmarks/results/gpu.json` and a plot beside it. `--help` lists the options.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import harness
from benchmarks.cpu import PANEL

TASKS = {"forward256": ("forward", 256), "train128": ("train", 128)}
Task = StrEnum("Task", {name: name for name in TASKS})
CONTENDERS = ["flaim", "timm:channels_last", "timm:compile"]


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Architectures; the whole panel by default.")] = None,
    task: Annotated[list[Task] | None, typer.Option(help="All by default.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each contender is timed, per model and task.")] = 3.0,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = harness.ROOT / "benchmarks/results/gpu.json",
) -> None:
    """Time flaim and timm side by side, one process each, taking turns."""
    console = Console()
    report: dict = {"machine": harness.machine(), "results": []}
    for key in task or TASKS:
        kind, batch = TASKS[key]
        panel = dict.fromkeys(models or PANEL, CONTENDERS)
        results = harness.run_panel(panel, kind, batch, report, output, "bfloat16", seconds)
        console.print(harness.table(results, f"{kind}, batch {batch}, bfloat16: median ms"))
        harness.plot(report, output.with_suffix(".png"))
    console.print(f"Figures written to {output} and {output.with_suffix('.png')}")


if __name__ == "__main__":
    typer.run(main)
