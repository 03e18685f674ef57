"""Output and errors of the commands."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# typer includes its own copy of click. Its exceptions are public, but their common base class isn't.
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

# Parameters that several commands share.
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
    """The console for a command's output; lines are not wrapped in a pipe or a file."""
    from rich.console import Console

    folds = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if folds else _WIDTH_OF_FILES)


def stderr():
    """The console for progress bars and messages."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table_of(*columns: str):
    """An empty table without lines; columns of numbers are right-aligned."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    return table


def report(error: object) -> None:
    """Print an error on stderr."""
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

    The exit code is 2 if the user's input is wrong, and 1 for other expected failures. Any other exception is a bug and
    keeps its traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help if there are no arguments."""
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
    """The exit code for an error that users can fix, None for any other."""
    if isinstance(error, _UsageError):
        return 2
    from flaim.data import ImageError
    from flaim.weights import CatalogueError, CheckpointError

    if isinstance(error, CatalogueError | CheckpointError | ImageError | FileNotFoundError):
        return 2
    return 1 if isinstance(error, OSError | ImportError) else None


def _usage(error: Any) -> str:
    """A usage error in one line, with the command that shows the help."""
    # For an error without a parameter, `format_message` would add "Invalid value".
    nameless = isinstance(error, typer.BadParameter) and error.param is None
    message = error.message if nameless else error.format_message()
    command = error.ctx.command_path if error.ctx else "flaim"
    return f"{message.rstrip('.')} ({command} --help)"
