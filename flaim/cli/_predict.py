"""`flaim predict`: classifies images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flaim.cli._frameworks import Framework
from flaim.cli._terminal import MODEL_HELP, Params, pretrained, progress, report, stdout

_BATCH = 8
_BAR = 20  # characters


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)],
    params: Params = None,
    framework: Annotated[Framework, typer.Option("--framework", "-f", help="What runs the model.")] = Framework.jax,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many classes to show.")] = 5,
) -> None:
    """Classify images, each preprocessed as the checkpoint was evaluated.

    An image that cannot be read is reported, and the others are classified all the same; the exit code is 2 then.
    """
    import jax
    import numpy as np

    from flaim.data import ImageError, Preprocess, labels_for
    from flaim.weights import get_model, resolve

    config = resolve(model, pretrained(params))
    preprocess = Preprocess.from_row(config.preprocessing)
    built, variables, _ = get_model(model, pretrained(params))
    if built.n_classes <= 0:
        raise typer.BadParameter(f"{model} was trained without classes: it has features, not predictions")
    labels = config.labels or labels_for(built.n_classes) or [f"class {i}" for i in range(built.n_classes)]
    forward = framework.forward(built, variables)

    results: list[tuple[Path, Any]] = []
    problems: list[ImageError] = []
    with progress() as bar:
        task = bar.add_task(f"classifying with {framework.full_name}", total=len(images))
        for start in range(0, len(images), _BATCH):
            paths = images[start : start + _BATCH]
            batch, names = [], []
            for path in paths:
                try:
                    batch.append(preprocess(path))
                    names.append(path)
                except ImageError as error:
                    problems.append(error)
            if batch:
                probabilities = jax.nn.softmax(forward(np.concatenate(batch)))
                results += zip(names, np.asarray(probabilities))
            bar.advance(task, len(paths))

    console = stdout()
    for name, probabilities in results:
        console.print(str(name), style="bold", markup=False)
        console.print(_ranking(probabilities, labels, top))
    for problem in problems:
        report(problem)
    if problems:
        raise typer.Exit(2)


def _ranking(probabilities: Any, labels: Sequence[str], top: int):
    """The most probable classes, one line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for index in probabilities.argsort()[::-1][:top]:
        bar = Text("━" * round(_BAR * float(probabilities[index])), style="cyan")
        table.add_row(f"{probabilities[index]:8.1%}", Text(labels[index]), bar)
    return table
