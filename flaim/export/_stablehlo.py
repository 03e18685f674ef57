"""StableHLO, by `jax.export`: one program for CPU, GPU and TPU that any later jax runs."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import flaim_core as core
from flaim.export._common import ExportError, NormStats, inference
from flaim.model import Model

# Programs are serialised as a flatbuffer, whose offsets are signed 32-bit numbers.
_MOST_BYTES = 2**31 - 2**24


def to_stablehlo(
    model: Model,
    variables: Mapping,
    *,
    batch: int | None = None,
    norm_stats: NormStats | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> jax.export.Exported:
    """The model as a function of images alone; its variables are part of the program.

    Args:
        model, variables: As `get_model` of `flaim.models` returns them.
        batch: Number of images per call; None: any number.
        norm_stats: `{"mean": ..., "std": ...}`, with which the program itself normalises images in [0, 1]; None: it
            takes normalised images.
        platforms: The platforms that can run it.

    Raises:
        ExportError: The variables take more than the 2 GB that one program can hold.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    if size > _MOST_BYTES:
        raise ExportError(
            f"{model.name} has {size:,} bytes of variables, and a serialised program holds no more than 2 GB: export a "
            "function that takes the variables too, jax.export.export(jax.jit(lambda v, x: model.apply(v, x).value))"
        )
    first = batch if batch is not None else jax.export.symbolic_shape("batch")[0]
    images = jax.ShapeDtypeStruct((first, *model.input_size, model.in_channels), jnp.float32)
    with core.lowering("portable"):
        return jax.export.export(jax.jit(inference(model, variables, norm_stats)), platforms=[*platforms])(images)


def save_stablehlo(exported: jax.export.Exported, path: str | PathLike, facts: Mapping[str, Any]) -> list[Path]:
    """Write the program to `path` and `facts` to the JSON file `<path>.json`; returns both paths.

    To run it, call `jax.export.deserialize(path.read_bytes()).call(images)`.
    """
    path = Path(path)
    beside = path.with_name(f"{path.name}.json")
    path.write_bytes(exported.serialize())
    beside.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [path, beside]
