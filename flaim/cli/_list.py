"""`flaim list`: the checkpoints there are."""

import re
from typing import Annotated

import typer

from flaim.cli._terminal import stdout, table_of


def list_checkpoints(
    pattern: Annotated[str, typer.Argument(help="Regular expression, found anywhere in the model's name.")] = "",
    params: Annotated[str, typer.Option(help="The same for the parameters' name.", metavar="PATTERN")] = "",
    size: Annotated[int | None, typer.Option(help="Only checkpoints for images of this side.")] = None,
    timm: Annotated[bool, typer.Option("--timm", help="List timm's checkpoints after flaim's own.")] = False,
) -> None:
    """List the (model, parameters) pairs that get_model takes, with image size and license."""
    from flaim.weights import list_models, rows

    try:
        pairs = set(list_models(pattern, params, timm=timm))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    matches = [
        row
        for row in rows(timm=timm)
        if re.search(pattern, row.model) and re.search(params, row.params) and size in (None, max(row.input_size))
    ]
    found = [row for row in matches if (row.model, row.params) in pairs]
    missing = [row for row in matches if (row.model, row.params) not in pairs]
    if not matches:
        asked = [f"{name} {value!r}" for name, value in (("model", pattern), ("parameters", params)) if value]
        asked += [f"image size {size}"] if size is not None else []
        raise typer.BadParameter(f"no checkpoint fits {' and '.join(asked)}")

    console = stdout()
    if found:
        table = table_of("model", "parameters", "size", "license")
        for row in found:
            table.add_row(row.model, row.params, format_size(row.input_size), format_license(row))
        console.print(table)
        restricted = sum(row.non_commercial for row in found)
        note = f", {restricted} not for commercial use" if restricted else ""
        console.print(f"\n{_count(found)}{note}")
    if missing:
        families = ", ".join(sorted({row.family for row in missing}))
        console.print(f"{_count(missing)} not implemented yet: {families}")


def format_size(size: tuple[int, int]) -> str:
    """ "224", or "160x192" (height x width) where images are not square."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def format_license(row) -> str:
    """A checkpoint's license, marked where it forbids commercial use."""
    return f"{row.license or 'unknown'}{' [yellow](non-commercial)[/]' if row.non_commercial else ''}"


def _count(rows: list) -> str:
    checkpoints, models = len(rows), len({row.model for row in rows})
    return f"{checkpoints} checkpoint{'s'[: checkpoints != 1]} of {models} model{'s'[: models != 1]}"
