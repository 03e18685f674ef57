"""`flaim convert`: a checkpoint of any source in flaim's own format, or in timm's."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flaim.cli._terminal import progress, stdout


class Format(StrEnum):
    """What a checkpoint can be converted to."""

    flaim = "flaim"
    timm = "timm"


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="File, folder, hf-hub:organisation/name, or architecture.tag.")
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="Folder to write, made where it is not there.")],
    to: Annotated[Format, typer.Option(help="timm: a safetensors file and a configuration that timm loads.")] = (
        Format.flaim
    ),
    force: Annotated[
        bool,
        typer.Option("--force", help="Write into a folder that is not empty: replace its checkpoint, keep the rest."),
    ] = False,
) -> None:
    """Convert a checkpoint, and check what was written against the source.

    Half-precision numbers stay what they are, double precision becomes single.
    """
    from rich.markup import escape
    from rich.table import Table

    from flaim.weights.saving.convert import convert as run

    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def update(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        try:
            report = run(source, dest, to.value, force=force, progress=update)
        except FileExistsError as error:
            hint = "; --force replaces the checkpoint in it and keeps its other files" if dest.is_dir() else ""
            raise typer.BadParameter(f"{error}{hint}") from error

    written = f"{report.leaves} leaves"
    if report.fresh:
        written += f", and {len(report.fresh)} that the source lacks at their initial values: {', '.join(report.fresh)}"
    facts = {
        "model": report.config.architecture,
        "converted": written,
        "dtype": ", ".join(sorted(report.dtypes)),
        "bytes": f"{sum(report.dtypes.values()):,}",
        "check": f"largest difference from the source {report.difference:g}, read from what was written",
        "written": ", ".join(map(str, report.files)),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"[dim]{name}[/]", escape(value))
    stdout().print(table)
