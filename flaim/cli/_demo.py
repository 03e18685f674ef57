"""`flaim demo`: one set of variables in four frameworks, on handwritten digits."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from flaim.cli._frameworks import Framework
from flaim.cli._terminal import progress, stdout, table_of

_REPEATS = 5


class Result(NamedTuple):
    """Results of one framework; times in seconds."""

    framework: Framework
    logits: Any
    compile_time: float
    time: float


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to draw the digits (PNG).", dir_okay=False)] = (
        Path("flaim-demo.png")
    ),
) -> None:
    """Read handwritten digits with one pretrained model in the four frameworks, and compare them.

    The model comes with flaim; it has never seen these digits. Nothing is downloaded.
    """
    import numpy as np

    from flaim.checkpoints import DIGITS
    from flaim.data import Preprocess, load_digits
    from flaim.weights import get_model, resolve

    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}")
    try:
        from flaim.cli._drawing import draw
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"flaim demo draws with {error.name}: pip install 'flaim[demo]'") from error

    scans = load_digits("held_out")
    model, variables, _ = get_model(DIGITS)
    images = Preprocess.from_row(resolve(DIGITS).preprocessing)(scans.images)

    results, missing = [], []
    with progress() as bar:
        task = bar.add_task("", total=len(Framework))
        for framework in Framework:
            bar.update(task, description=framework.full_name)
            try:
                results.append(_run(framework, framework.forward(model, variables), images))
            except ImportError as error:
                missing.append((framework, error))
            bar.advance(task)

    console = stdout()
    console.print(f"[bold]{len(images)} handwritten digits, one set of variables[/]\n")
    console.print(_table(results, scans.labels))
    for framework, problem in missing:
        console.print(f"{framework.full_name} is left out: {problem}", style="yellow", markup=False, soft_wrap=True)
    adapters = [result for result in results if result.framework is not Framework.jax]
    if len(adapters) > 1:
        stacked = np.stack([result.logits for result in adapters])
        spread = float(np.max(stacked.max(0) - stacked.min(0)))
        largest = float(np.abs(stacked).max())
        console.print(
            f"\nLargest difference between two frameworks' logits: {spread:.3g} (the largest is {largest:.3g})"
        )
    draw(output, scans.images, scans.labels, results[0].logits)
    console.print(f"Digits and predictions: {output}", markup=False, soft_wrap=True)
    console.print("The model: flaim.get_model(flaim.checkpoints.DIGITS)")


def _run(framework: Framework, forward: Callable, images: Any) -> Result:
    import jax
    import numpy as np

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(forward(images))
        return time.perf_counter() - start

    first = seconds()
    best = min(seconds() for _ in range(_REPEATS))
    return Result(framework, np.asarray(forward(images)), first - best, best)


def _table(results: Sequence[Result], labels: Any):
    """One row per framework."""
    table = table_of("framework", "right", "accuracy", "logits differ by", "compiling", "running")
    for framework, logits, compile_time, seconds in results:
        right = int((logits.argmax(-1) == labels).sum())
        difference = abs(logits - results[0].logits).max()
        table.add_row(
            framework.full_name,
            f"{right} of {len(labels)}",
            f"{right / len(labels):.2%}",
            f"{difference:.3g}",
            f"{compile_time:.2f} s",
            f"{1000 * seconds:.1f} ms",
        )
    return table
