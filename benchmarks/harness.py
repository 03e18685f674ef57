"""Runs contenders in turns, and reports the results."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.contenders import TIMM

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Result:
    """Measurements of one contender on one model and task; times in seconds, memory in MB."""

    contender: str
    model: str
    task: str
    batch: int
    times: list[float] = field(default_factory=list)
    costs: dict = field(default_factory=dict)
    error: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.times) if self.times else float("nan")


class _Worker:
    def __init__(self, contender: str, model: str, task: str, batch: int, dtype: str):
        self.result = Result(contender, model, task, batch)
        command = [sys.executable, "-m", "benchmarks.worker", contender, model, task, str(batch), dtype]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        answer = self._read()
        self.result.error = answer.pop("error", None)
        self.result.costs = answer

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def run(self, steps: int) -> None:
        if self.result.error is None:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
            answer = self._read()
            self.result.error = answer.get("error")
            self.result.times += answer.get("times_s", [])

    def close(self) -> Result:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        return self.result


def measure(
    contenders: list[str], model: str, task: str, batch: int, dtype: str = "float32", seconds: float = 3.0
) -> list[Result]:
    """Time every contender on one model, in turns of about `seconds / 5`, about `seconds` for each contender."""
    workers = [_Worker(contender, model, task, batch, dtype) for contender in contenders]
    for worker in workers:
        worker.run(2)
    for worker in workers:
        worker.result.times = worker.result.times[1:]
    rounds = 5
    for _ in range(rounds):
        for worker in workers:
            if worker.result.times:
                worker.run(max(1, round(seconds / rounds / worker.result.median)))
    return [worker.close() for worker in workers]


def ratio(results: list[Result], contender: str = "flaim") -> float:
    """Median time of `contender` over that of timm's best mode."""
    best = min((r.median for r in results if r.contender in TIMM and r.times), default=float("nan"))
    own = next((r.median for r in results if r.contender == contender and r.times), float("nan"))
    return own / best


def run_panel(
    panel: dict[str, list[str]],
    task: str,
    batch: int,
    report: dict,
    output: Path,
    dtype: str = "float32",
    seconds: float = 3.0,
) -> dict[str, list[Result]]:
    """`measure` for every model of `panel` (model: contenders), with a progress bar.

    After each model, its figures are added to `report`, which is written to the JSON file `output`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    results = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{task}, batch {batch}", total=len(panel))
        for model, contenders in panel.items():
            progress.update(bar, description=f"{task}, batch {batch}: {model}")
            results[model] = measure(contenders, model, task, batch, dtype, seconds)
            report["results"] += [{**asdict(r), "median": r.median} for r in results[model]]
            output.write_text(json.dumps(report, indent=1))
            progress.advance(bar)
    return results


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f}"


def table(results: dict[str, list[Result]], title: str, limits: dict[str, float] | None = None) -> Table:
    """Medians in milliseconds, flaim's ratio to timm's best mode, its fraction of the limit in `limits` (seconds)."""
    contenders = list(dict.fromkeys(r.contender for rows in results.values() for r in rows))
    # Narrow enough for a terminal of 80 columns with the panel's longest name.
    out = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    out.add_column("model", no_wrap=True)
    for name in contenders:
        out.add_column(name.replace(":", "\n").replace("_", "\n"), justify="right")
    out.add_column("ratio", justify="right", style="bold")
    if limits:
        out.add_column("of\nlimit", justify="right")
    for model, rows in results.items():
        by_name = {r.contender: r for r in rows}
        cells = [
            "" if name not in by_name else "failed" if by_name[name].error else _milliseconds(by_name[name].median)
            for name in contenders
        ]
        cells.append(f"{ratio(rows):.2f}")
        if limits:
            cells.append(f"{limits[model] / by_name['flaim'].median:.0%}" if by_name["flaim"].times else "")
        out.add_row(model, *cells)
    ratios = [r for rows in results.values() if (r := ratio(rows)) == r]
    if ratios:
        out.caption = f"geometric mean of the ratios {statistics.geometric_mean(ratios):.2f}, largest {max(ratios):.2f}"
    return out


def matmul_rate(size: int = 2048, repeats: int = 15) -> float:
    """Floating-point operations per second of a float32 matrix product, the better of jax and torch."""
    code = (
        "import sys, time, statistics, {0} as np\n"
        "{1}\n"
        "times = []\n"
        "for _ in range({2}):\n"
        "    start = time.perf_counter(); run(); times.append(time.perf_counter() - start)\n"
        "print(2 * {3} ** 3 / statistics.median(times[3:]))\n"
    )
    jax_setup = (
        "import jax; a = np.ones(({0}, {0})); f = jax.jit(lambda a: a @ a); run = lambda: f(a).block_until_ready()"
    )
    torch_setup = "a = np.ones({0}, {0}); run = lambda: a @ a"
    rates = []
    for module, setup in (("jax.numpy", jax_setup), ("torch", torch_setup)):
        program = code.format(module, setup.format(size), repeats, size)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        rates.append(float(done.stdout))
    return max(rates)


def operations(model: str, batch: int, task: str) -> int:
    """Floating-point operations of matrix products and convolutions: a forward pass, times three for training."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tests.oracle import timm

    with torch.device("meta"):
        network = timm.create_model(model).eval()
        images = torch.empty(batch, *timm.get_pretrained_cfg(model).input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return counter.get_total_flops() * (3 if task == "train" else 1)


def plot(report: dict, path: Path) -> None:
    """Bar chart with a panel for each task: each contender's time over that of timm's best mode, for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    tasks = list(dict.fromkeys((r["task"], r["batch"]) for r in report["results"]))
    figure, axes = plt.subplots(len(tasks), 1, figsize=(12, 3.6 * len(tasks)), squeeze=False, layout="constrained")
    for axis, (task, batch) in zip(axes[:, 0], tasks):
        rows = [r for r in report["results"] if (r["task"], r["batch"]) == (task, batch) and r["times"]]
        models = list(dict.fromkeys(r["model"] for r in rows))
        shown = [c for c in ("flaim", *TIMM, "keras") if any(r["contender"] == c for r in rows)]
        medians = {(r["model"], r["contender"]): r["median"] for r in rows}
        best = {m: min((medians.get((m, c), np.inf) for c in TIMM), default=np.nan) for m in models}
        for i, contender in enumerate(shown):
            heights = [medians.get((m, contender), np.nan) / best[m] for m in models]
            axis.bar(
                np.arange(len(models)) + 0.8 * (i - (len(shown) - 1) / 2) / len(shown),
                heights,
                0.8 / len(shown),
                label=contender,
            )
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(models)), models, rotation=25, ha="right", fontsize=8)
        axis.set_ylim(0, 3)
        axis.set_ylabel("time / best timm mode")
        axis.set_title(f"{task}, batch {batch} (lower is better; bars above 3 are cut)", fontsize=10)
    axes[0, 0].legend(ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def machine() -> dict:
    """The hardware and versions behind the figures."""
    from importlib.metadata import version

    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "?")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("jax", "torch", "timm")},
    }
