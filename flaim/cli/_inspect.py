"""`flaim inspect`: the contents of a checkpoint file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flaim.cli._list import format_size
from flaim.cli._terminal import stdout, table_of


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="File, folder, hf-hub:organisation/name, or architecture.tag.")
    ],
) -> None:
    """List the tensors in a checkpoint of any format, and say which model they are taken for.

    The numbers themselves are not read.
    """
    from rich.markup import escape
    from rich.table import Table

    from flaim.weights import formats, sources

    location = sources.locate(source) if sources.is_source(source) else sources.resolve(source).location
    file = sources.weights_file(location)
    tensors = formats.read(file)
    facts = {**_of_file(file, tensors), **_of_model(source, tensors)}
    summary = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            summary.add_row(f"[dim]{name}[/]", escape(value))
    table = table_of("tensor", "shape", "dtype", "bytes")
    for name, tensor in tensors.items():
        table.add_row(escape(_shown(name)), _shape(tensor), tensor.dtype.name, f"{_bytes(tensor):,}")
    console = stdout()
    console.print(summary)
    console.print()
    console.print(table)


def _of_file(file: Path, tensors: Mapping[str, Any]) -> dict[str, str]:
    from flaim.weights import formats

    name = formats.format_of(file)
    shards = formats.shards_of(file) if name == "index" else []
    dtypes: dict[str, int] = {}
    for tensor in tensors.values():
        dtypes[tensor.dtype.name] = dtypes.get(tensor.dtype.name, 0) + _bytes(tensor)
    most = sorted(dtypes.items(), key=lambda item: -item[1])
    kinds = ", ".join(dtypes) if len(most) == 1 else ", ".join(f"{dtype} {size:,}" for dtype, size in most)
    size = sum(dtypes.values())
    return {
        "file": str(file),
        "format": formats.FORMATS[name] + (f", {len(shards)} files" if shards else ""),
        "tensors": f"{len(tensors):,}, of {size:,} bytes" + (f" ({kinds})" if kinds else ""),
    }


def _of_model(source: str, tensors: Mapping[str, Any]) -> dict[str, str]:
    """The model that the checkpoint belongs to, or why none was found."""
    from flaim.weights import CatalogueError, CheckpointError, model_of, resolve
    from flaim.weights.assign import classes_in
    from flaim.weights.converters.native import has_paths

    try:
        info = resolve(source)
        classes = info.n_classes
        if classes is None:
            classes = classes_in(model_of(info), tensors, info)
    except (CatalogueError, CheckpointError, FileNotFoundError) as error:
        return {"names": "flaim" if has_paths(tensors) else "", "model": f"no model: {error}"}
    return {
        "names": info.converter,
        "model": f"{info.architecture} (family {info.family})",
        "changes": ", ".join(f"{name}={_option(value)}" for name, value in info.overrides.items()),
        "classes": str(classes) if classes > 0 else "none: features",
        "images": f"{format_size(info.input_size)} pixels, channels: {info.in_channels}",
        "license": info.license or "",
    }


def _option(value: Any) -> str:
    """An option of a model as text; a function is shown as its name and bound arguments."""
    if not isinstance(value, Mapping):
        return str(value)
    bound = ", ".join(f"{name}={item}" for name, item in value.items() if name != "function")
    return f"{value.get('function')}({bound})" if bound else str(value.get("function"))


def _shown(name: str) -> str:
    """A name in a form that is safe to print; names in files may contain any character."""
    return name if name.isprintable() else repr(name)


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "-"


def _bytes(tensor: Any) -> int:
    import math

    return math.prod(tensor.shape) * tensor.dtype.itemsize
