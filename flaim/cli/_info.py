"""`flaim info`: what is known of a model."""

from typing import Annotated, Any

import typer

from flaim.cli._list import format_license, format_size
from flaim.cli._terminal import MODEL_HELP, Params, pretrained, stderr, stdout, table_of


def info(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    params: Params = None,
) -> None:
    """Show a model's parameters, FLOPs, feature maps, checkpoints and license."""
    from rich.markup import escape
    from rich.table import Table

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
            "parameters": f"{parameter_count(built):,}",
            "FLOPs": f"{_si(flops(built))} for an image, by XLA's count (a multiply-add is two)",
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
        table = table_of("checkpoint", "size", "classes", "license")
        for name, row in checkpoints:
            table.add_row(
                name,
                format_size(row.input_size),
                str(row.n_classes) if (row.n_classes or 0) > 0 else "-",
                format_license(row),
            )
        console.print()
        console.print(table)


def parameter_count(model: Any) -> int:
    """How many numbers are trained; running statistics are not."""
    import math

    from flaim_core import flatten

    return sum(math.prod(leaf.shape) for leaf in flatten(model.spec()["params"]).values())


def flops(model: Any) -> float:
    """Floating-point operations of the forward pass of one image, as XLA counts those of the unoptimised program.

    The program is a GPU's, whose convolutions are plain ones: some of those for CPUs do more arithmetic in less time.
    """
    import jax

    from flaim_core import shape_struct

    leaves = jax.tree.map(shape_struct, model.spec())
    traced = jax.jit(lambda variables, x: model.apply(variables, x).value).trace(leaves, model.image())
    return traced.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]


def _preprocessing(config: Any) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in config.norm_stats.values())
    images = config.preprocessing
    crop = f"{images.crop_mode} crop of {images.crop_pct:g}, " if images.crop_pct else ""
    return f"{images.interpolation}, {crop}mean {mean}, std {std}"


def _checkpoints(config: Any) -> list[tuple[str, Any]]:
    """The catalogue's rows for a model, each with the name that asks for it."""
    from flaim.weights import rows

    own = [(f"{row.model} {row.params}", row) for row in rows(timm=False) if row.model == config.model]
    timm = [
        (f"{row.model}.{row.params}", row)
        for row in rows(flaim=False, keras=False)
        if row.architecture == config.architecture
    ]
    return [*own, *timm]


def _si(number: float) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f}"
