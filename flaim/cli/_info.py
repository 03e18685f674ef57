"""`flaim info`: what is known about a model."""

from typing import Annotated, Any

import typer

from flaim.cli._list import format_accuracy, format_license, format_size
from flaim.cli._terminal import MODEL_HELP, Params, pretrained, stderr, stdout, table_of


def info(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    params: Params = None,
) -> None:
    """Show a model's size, accuracy, feature maps, checkpoints and license."""
    from rich.markup import escape
    from rich.table import Table

    from flaim.counts import count_multiply_adds, count_parameters
    from flaim.weights import model_of, resolve

    config = resolve(model, pretrained(params, default=False))
    with stderr().status(f"tracing {config.architecture}"):
        built = model_of(config)
        height, width = built.input_size
        facts = {
            "architecture": f"{built.name} (family {config.family})",
            "images": f"{height}x{width} pixels, {built.in_channels} channel{'s'[: built.in_channels != 1]}",
            "preprocessing": _preprocessing(config),
            "output": f"{built.n_classes} classes" if built.n_classes > 0 else "features, no classes",
            "parameters": f"{count_parameters(built):,}",
            "GMACs": f"{count_multiply_adds(built) / 1e9:.3g} (multiply-adds for an image)",
            "top-1": _accuracy(config),
            "from": config.location.path or config.location.repo or config.location.url,
            "license": format_license(config),
            "note": config.note,
        }
        features = built.feature_info

    console = stdout()
    title = " ".join(part for part in (config.model, config.params) if part)
    console.print(f"[bold]{escape(title)}[/]\n")
    summary = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            summary.add_row(f"[dim]{name}[/]", value if name == "license" else escape(value))
    console.print(summary)

    table = table_of("feature map", "channels", "reduction")
    for feature in features:
        table.add_row(feature.name, str(feature.channels), str(feature.reduction))
    console.print()
    console.print(table)

    if checkpoints := _checkpoints(config):
        table = table_of("checkpoint", "size", "classes", "top-1", "license")
        from flaim.weights.catalogue import listing

        for name, row in checkpoints:
            table.add_row(
                name,
                format_size(row.input_size),
                str(row.n_classes) if (row.n_classes or 0) > 0 else "-",
                format_accuracy(listing(row)),
                format_license(row),
            )
        console.print()
        console.print(table)


def _preprocessing(config: Any) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in config.norm_stats.values())
    images = config.preprocessing
    crop = f"{images.crop_mode} crop of {images.crop_pct:g}, " if images.crop_pct else ""
    return f"{images.interpolation}, {crop}mean {mean}, std {std}"


def _checkpoints(config: Any) -> list[tuple[str, Any]]:
    """The catalogue's rows for a model, each with the name to request it by."""
    from flaim.weights import rows

    own = [(f"{row.model} {row.params}", row) for row in rows(timm=False) if row.model == config.model]
    timm = [
        (f"{row.model}.{row.params}", row)
        for row in rows(flaim=False, keras=False)
        if row.architecture == config.architecture
    ]
    return [*own, *timm]


def _accuracy(config: Any) -> str:
    """The accuracy that timm publishes for a checkpoint, at each image size."""
    from flaim.weights.catalogue import accuracies

    figures = [f"{found.top1:.2f} % @{found.size} (top-5 {found.top5:.2f} %)" for found in accuracies(config)]
    return f"{', '.join(figures)} on ImageNet-1k, as timm publishes it" if figures else ""
