"""`flaim export`: a model for other runtimes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flaim.cli._terminal import MODEL_HELP, Params, pretrained, progress, stdout


class Target(StrEnum):
    """What a model can be exported to."""

    onnx = "onnx"
    stablehlo = "stablehlo"


_HOW_TO_RUN = {
    Target.onnx: 'onnxruntime.InferenceSession("{path}").run(None, {{"images": images}})',
    Target.stablehlo: 'jax.export.deserialize(open("{path}", "rb").read()).call(images)',
}


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="File to write.")],
    to: Annotated[Target, typer.Option(help="onnx needs the extra flaim\\[onnx]; stablehlo is for any later jax.")],
    params: Params = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; by default any number.", show_default=False)
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(help="Images' side, or HEIGHTxWIDTH; by default the checkpoint's.", show_default=False),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Take images of values from 0 to 1, and normalise them in the model.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Export a model as one file: its program and its weights.

    With it go class names, image size, normalisation and license: as metadata of an ONNX file, as a JSON file beside a
    StableHLO one.
    """
    size = _size(input_size)
    if dest.is_dir():
        raise typer.BadParameter(f"{dest} is a folder: name a file in it")
    if dest.exists() and not force:
        raise typer.BadParameter(f"{dest} is there already; --force replaces it")
    dest.parent.mkdir(parents=True, exist_ok=True)
    dest.touch()  # fails now, not after the work
    try:
        written, facts = _write(model, dest, to, pretrained(params), batch, size, normalise)
    except BaseException:
        if dest.stat().st_size == 0:
            dest.unlink()
        raise

    from rich.markup import escape
    from rich.table import Table

    shape = ", ".join(map(str, ["batch" if batch is None else batch, *facts["input_size"], facts["in_channels"]]))
    labels = f"{len(facts['labels'])} class names" if "labels" in facts else "no class names"
    rows = {
        "model": facts["model"],
        "images": f"({shape}), {facts['range']}",
        "output": f"{facts['output']}, {labels}" if facts["output"] == "logits" else facts["output"],
        "license": facts.get("license", "unknown"),
        "written": ", ".join(f"{path} ({path.stat().st_size:,} bytes)" for path in written),
        "run": _HOW_TO_RUN[to].format(path=dest),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    stdout().print(table)


def _write(model, dest, to, params, batch, size, normalise):
    """Export the model; returns the files written and the description of the model."""
    if to is Target.onnx:
        _require_onnx()
    from flaim.export import ExportError, describe, save_onnx, save_stablehlo, to_onnx, to_stablehlo
    from flaim.weights import get_model, resolve

    with progress() as bar:
        task = bar.add_task("reading", total=3)
        config = resolve(model, params)
        built, variables, stats = get_model(model, params, input_size=size)
        norm_stats = stats if normalise else None
        facts = describe(built, config, norm_stats)
        bar.update(task, description=f"exporting to {to.value}", completed=1)
        try:
            if to is Target.onnx:
                graph = to_onnx(built, variables, batch=batch, norm_stats=norm_stats, facts=facts)
                bar.update(task, description="writing", completed=2)
                return save_onnx(graph, dest), facts
            program = to_stablehlo(built, variables, batch=batch, norm_stats=norm_stats)
            bar.update(task, description="writing", completed=2)
            return save_stablehlo(program, dest, facts), facts
        except ExportError as error:
            raise typer.BadParameter(str(error)) from error


def _require_onnx() -> None:
    from importlib.util import find_spec

    if find_spec("jax2onnx") is None:
        raise ImportError('ONNX needs jax2onnx: pip install "flaim[onnx]"')


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise typer.BadParameter(f"an image size is a number, or two with an x between, 224 or 224x288, not {text!r}")
    height, width = (int(sides[0]), int(sides[-1]))
    return height, width
