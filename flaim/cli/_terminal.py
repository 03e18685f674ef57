"""Where the commands write, and how they fail."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# typer has had its own copy of click for some time; its exceptions are public, their common base is not.
_UsageError: Any = typer.BadParameter.__base__

_WIDTH_OF_FILES = 240
_NUMBERS = {
    "size",
    "bytes",
    "classes",
    "channels",
    "reduction",
    "right",
    "accuracy",
    "logits differ by",
    "compiling",
    "running",
}

# What several commands ask for.
MODEL_HELP = "Name, architecture.tag, hf-hub:organisation/name, or the path of a checkpoint."
Params = Annotated[
    str | None,
    typer.Option(help="Parameters name, or images' side; by default the model's first.", show_default=False),
]


def pretrained(params: str | None, default: bool = True) -> str | int | bool:
    """The option `--params` as get_model takes it."""
    if params is None:
        return default
    return int(params) if params.isdecimal() else params


def stdout():
    """The console of what a command puts out; in a pipe or a file no line is folded."""
    from rich.console import Console

    folds = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if folds else _WIDTH_OF_FILES)


def stderr():
    """The console of progress bars and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table_of(*columns: str):
    """An empty table without lines; columns of numbers are set flush right."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    return table


def report(error: object) -> None:
    """Say on stderr what went wrong."""
    from rich.text import Text

    stderr().print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)


def progress():
    """A progress bar on stderr that goes away when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = stderr()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Commands(TyperGroup):
    """Commands that answer expected failures with one message on stderr.

    The exit code is 2 where what the user gave is wrong, 1 where something else failed. Whatever is not expected is a
    bug, and keeps its traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help where there is nothing to parse."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command and exit."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except typer.Abort:
            code = 130
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            report(_usage(error) if isinstance(error, _UsageError) else error)
        sys.exit(code or 0)


def _exit_code(error: Exception) -> int | None:
    """The exit code for an error that users can do something about, None for any other."""
    if isinstance(error, _UsageError):
        return 2
    from flaim.data import ImageError
    from flaim.weights import CatalogueError, CheckpointError

    if isinstance(error, CatalogueError | CheckpointError | ImageError | FileNotFoundError):
        return 2
    return 1 if isinstance(error, OSError | ImportError) else None


def _usage(error: Any) -> str:
    """A usage error in one line, with the command that would have helped."""
    # Without a parameter to name, a bad one would be announced as an "invalid value".
    nameless = isinstance(error, typer.BadParameter) and error.param is None
    message = error.message if nameless else error.format_message()
    command = error.ctx.command_path if error.ctx else "flaim"
    return f"{message.rstrip('.')} ({command} --help)"
