"""The `flaim` command. What a command needs is imported when it runs, so that `flaim --help` answers at once."""

from typing import Annotated

import typer

from flaim.cli._convert import convert
from flaim.cli._demo import demo
from flaim.cli._export import export
from flaim.cli._info import info
from flaim.cli._inspect import inspect
from flaim.cli._list import list_checkpoints
from flaim.cli._predict import predict
from flaim.cli._terminal import Commands

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command("list")(list_checkpoints)
app.command()(info)
app.command()(predict)
app.command()(convert)
app.command()(export)
app.command()(inspect)


def main() -> None:
    """Run the command line."""
    app(prog_name="flaim")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"flaim {version('flaim')}")
        raise typer.Exit
    return wanted


@app.callback()
def _flaim(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The same pretrained image models for Flax Linen, Flax NNX, Equinox and Haiku."""
