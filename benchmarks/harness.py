"""Runs contenders side by side in turns, and tells what came out."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.contenders import TIMM

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Result:
    """What one contender took for one model and task; times in seconds, memory in MB."""

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
        return self.result


def measure(
    contenders: list[str], model: str, task: str, batch: int, dtype: str = "float32", seconds: float = 3.0
) -> list[Result]:
    """Time every contender on one model, in turns of about `seconds / 5` each, until each had about `seconds`."""
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
    panel: dict[str, list[str]], task: str, batch: int, dtype: str = "float32", seconds: float = 3.0
) -> dict[str, list[Result]]:
    """`measure` for every model of `panel` (model: contenders), with a progress bar."""
    results = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{task}, batch {batch}", total=len(panel))
        for model, contenders in panel.items():
            progress.update(bar, description=f"{task}, batch {batch}: {model}")
            results[model] = measure(contenders, model, task, batch, dtype, seconds)
            progress.advance(bar)
    return results


def table(results: dict[str, list[Result]], title: str, limits: dict[str, float] | None = None) -> Table:
    """Medians in milliseconds, flaim's ratio to timm's best mode, its fraction of the limit in `limits` (seconds)."""
    contenders = list(dict.fromkeys(r.contender for rows in results.values() for r in rows))
    out = Table(title=title)
    out.add_column("model")
    for name in contenders:
        out.add_column(name, justify="right")
    out.add_column("ratio", justify="right", style="bold")
    if limits:
        out.add_column("of limit", justify="right")
    for model, rows in results.items():
        by_name = {r.contender: r for r in rows}
        cells = [
            "" if name not in by_name else "failed" if by_name[name].error else f"{by_name[name].median * 1e3:.1f}"
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


def machine() -> dict:
    """What the figures were measured on."""
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
