"""`flaim list`: the available checkpoints."""

import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flaim.cli._terminal import stdout, table_of

if TYPE_CHECKING:
    from flaim.weights.catalogue import Listing

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


class Sort(Enum):
    """What the list is sorted by: accuracy in descending order, all else in ascending order."""

    MODEL = "model"
    TOP1 = "top1"
    PARAMS = "params"
    GMACS = "gmacs"
    SIZE = "size"


def _number(text: str) -> float:
    """ "30M" or "2.5k" as a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgb]?)", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number such as 30M")
    return float(match[1]) * _UNITS[match[2]]


def list_checkpoints(
    pattern: Annotated[str, typer.Argument(help="Regular expression, found anywhere in the model's name.")] = "",
    params: Annotated[str, typer.Option(help="The same for the parameters' name.", metavar="PATTERN")] = "",
    size: Annotated[int | None, typer.Option(help="Only checkpoints for images of this side.")] = None,
    timm: Annotated[bool, typer.Option("--timm", help="List timm's checkpoints after flaim's own.")] = False,
    sort: Annotated[Sort, typer.Option(help="Accuracy sorts from the best, all else from the smallest.")] = Sort.MODEL,
    max_params: Annotated[
        str | None, typer.Option(help="Only models with at most this many parameters: 30M.", metavar="NUMBER")
    ] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(help="Only models with at most this many GMACs for an image.")
    ] = None,
    min_top1: Annotated[
        float | None, typer.Option(help="Only checkpoints with at least this accuracy, in percent.")
    ] = None,
) -> None:
    """List the (model, parameters) pairs that get_model takes, with their figures.

    top-1 is the accuracy on ImageNet-1k, in percent, that timm publishes, at the image size after the @.
    """
    from rich.table import Table

    from flaim.weights import list_models
    from flaim.weights.catalogue import is_implemented, rows

    try:
        listings = list_models(pattern, params, timm=timm, details=True)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    most = None if max_params is None else _number(max_params)
    found = [
        one
        for one in listings
        if size in (None, max(one.input_size))
        and (most is None or (one.parameters or 0) <= most)
        and (max_gmacs is None or (one.gmacs or 0) <= max_gmacs)
        and (min_top1 is None or (one.top1 or 0) >= min_top1)
    ]
    missing = [
        row
        for row in rows(timm=timm)
        if not is_implemented(row)
        and re.search(pattern, row.model)
        and re.search(params, row.params)
        and size in (None, max(row.input_size))
    ]
    if not found and not missing:
        limits: dict[str, Any] = {
            "model": pattern,
            "parameters": params,
            "image size": size,
            "--max-params": max_params,
        }
        limits |= {"--max-gmacs": max_gmacs, "--min-top1": min_top1}
        asked = [f"{name} {value!r}" for name, value in limits.items() if value not in ("", None)]
        hint = "" if timm or not any(re.search(pattern, row.model) for row in rows()) else "; timm's do: add --timm"
        raise typer.BadParameter(f"no checkpoint fits {' and '.join(asked)}{hint}")
    if sort is not Sort.MODEL:
        found.sort(key=_order(sort))

    console = stdout()
    if found:
        table: Table = table_of("model", "parameters", "size", "top-1", "params", "GMACs", "license")
        for one in found:
            table.add_row(
                one.model,
                one.params,
                format_size(one.input_size),
                format_accuracy(one),
                format_count(one.parameters),
                f"{one.gmacs:.3g}" if one.gmacs is not None else "-",
                format_license(one.info),
            )
        console.print(table)
        restricted = sum(one.info.non_commercial for one in found)
        note = f", {restricted} not for commercial use" if restricted else ""
        console.print(f"\n{_count(found)}{note}")
    if missing:
        names = ", ".join(sorted({row.model for row in missing}))
        console.print(f"{_count(missing)} not implemented yet: {names}")


def _order(sort: Sort) -> Any:
    """The key to sort listings by."""
    keys = {
        Sort.TOP1: lambda one: -(one.top1 or 0),
        Sort.PARAMS: lambda one: one.parameters or 0,
        Sort.GMACS: lambda one: one.gmacs or 0,
        Sort.SIZE: lambda one: one.input_size,
    }
    return keys[sort]


def format_accuracy(one: "Listing") -> str:
    """ "80.45 @224", or "-"."""
    return "-" if one.top1 is None else f"{one.top1:.2f} @{one.top1_size}"


def format_count(number: int | None) -> str:
    """A number of parameters in millions."""
    return "-" if number is None else f"{number / 1e6:.1f}M"


def format_size(size: tuple[int, int]) -> str:
    """ "224", or "160x192" (height x width) where images are not square."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def format_license(row: Any) -> str:
    """A checkpoint's license, marked where it forbids commercial use."""
    return f"{row.license or 'unknown'}{' [yellow](non-commercial)[/]' if row.non_commercial else ''}"


def _count(rows: list) -> str:
    checkpoints, models = len(rows), len({row.model for row in rows})
    return f"{checkpoints} checkpoint{'s'[: checkpoints != 1]} of {models} model{'s'[: models != 1]}"
