"""`python -m benchmarks.cpu`: flaim beside timm (eager, channels-last, compiled) and Keras on JAX, on a CPU.

Prints a table for each task, writes `benchmarks/results/cpu.json` and a plot beside it. `--help` lists the options.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import harness
from benchmarks.contenders import FLAIM, KERAS, TIMM

PANEL = [
    "resnet50",
    "resnext50_32x4d",
    "seresnet50",
    "convnext_tiny",
    "convnextv2_nano",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "mobilenetv2_100",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "deit3_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "maxvit_tiny_tf_224",
    "coatnet_0_rw_224",
    "regnety_032",
    "resnest50d",
    "skresnet50",
    "convmixer_768_32",
    "xcit_small_12_p16_224",
    "cait_xxs24_224",
    "beit_base_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_small_r26_s32_224",
    "swinv2_tiny_window8_256",
    "pvt_v2_b2",
    "gcvit_tiny",
    "pit_s_224",
    "davit_tiny",
    "nest_tiny",
]
TASKS = {"forward8": ("forward", 8), "forward1": ("forward", 1), "train8": ("train", 8)}
Task = StrEnum("Task", {name: name for name in TASKS})


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Architectures; the whole panel by default.")] = None,
    task: Annotated[list[Task] | None, typer.Option(help="All by default.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each contender is timed, per model and task.")] = 3.0,
    adapters: Annotated[bool, typer.Option(help="Time the four adapters too (forward).")] = True,
    dtype: Annotated[str, typer.Option(help="Compute dtype; timm's by autocast.")] = "float32",
    keep: Annotated[bool, typer.Option(help="Keep the figures of other tasks that the output file holds.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Where the figures go: benchmarks/results/cpu.json, or cpu-DTYPE.json.")
    ] = None,
) -> None:
    """Time flaim, timm and Keras side by side, one process each, taking turns."""
    console = Console()
    if output is None:
        output = harness.ROOT / "benchmarks/results" / ("cpu.json" if dtype == "float32" else f"cpu-{dtype}.json")
    rate = harness.matmul_rate()
    console.print(f"Matrix products of float32 numbers run at {rate / 1e9:.0f} GFLOP/s here.")
    report: dict = {"machine": {**harness.machine(), "matmul_flops": rate}, "results": []}
    if output.exists() and keep:
        report["results"] = [
            r
            for r in json.loads(output.read_text())["results"]
            if (r["task"], r["batch"]) not in map(TASKS.get, task or TASKS)
        ]
    for key in task or TASKS:
        kind, batch = TASKS[key]
        panel = {}
        for model in models or PANEL:
            ours = list(FLAIM) if adapters and kind == "forward" else ["flaim"]
            keras = ["keras"] if model in KERAS and kind == "forward" and dtype == "float32" else []
            panel[model] = ours + list(TIMM) + keras
        results = harness.run_panel(panel, kind, batch, report, output, dtype, seconds)
        limits = {model: harness.operations(model, batch, kind) / rate for model in panel}
        console.print(harness.table(results, f"{kind}, batch {batch}, {dtype}: median ms", limits))
        harness.plot(report, output.with_suffix(".png"))
    console.print(f"Figures written to {output} and {output.with_suffix('.png')}")


if __name__ == "__main__":
    typer.run(main)
