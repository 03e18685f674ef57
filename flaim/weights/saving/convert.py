"""Convert checkpoints from any source to flaim's or timm's format."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import flaim_core as core
from flaim.model import Model
from flaim.weights.assign import classes_in, lay_out, model_of, release
from flaim.weights.converters.timm import tensor_name
from flaim.weights.errors import CheckpointError
from flaim.weights.info import PREPROCESSING, CheckpointInfo
from flaim.weights.saving import native, to_timm
from flaim.weights.saving.writer import MAX_SHARD_SIZE, Tensor, write_checkpoint
from flaim.weights.sources import read, resolve

Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        config: Of the source.
        files: The weights files that were written.
        leaves: How many of the model's leaves were converted.
        fresh: Paths of leaves that the source lacks; they have initial values.
        dtypes: Bytes by dtype name.
        difference: The largest difference between a number in the source and the one read back; zero unless double
            precision was rounded.
    """

    config: CheckpointInfo
    files: tuple[Path, ...]
    leaves: int
    fresh: tuple[str, ...]
    dtypes: Mapping[str, int]
    difference: float


def convert(
    source: str | PathLike,
    destination: str | PathLike,
    to: Literal["flaim", "timm"] = "flaim",
    *,
    force: bool = False,
    max_shard_size: int = MAX_SHARD_SIZE,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Convert a checkpoint leaf by leaf.

    Half precision is kept; double precision becomes single. The result is loaded again and compared with the source.
    Files that can be memory-mapped are never in memory as a whole.

    Args:
        source: As in `load`.
        destination: A folder, created if it does not exist.
        to: `"flaim"` is the format of `save_pretrained`; `"timm"` has timm's names and configuration, so that timm's
            `create_model("local-dir:...")` and `load_state_dict(strict=True)` accept it.
        force: Write into a folder that is not empty: a checkpoint in it is replaced, other files stay.
        max_shard_size: As in `save_pretrained`; timm's format is always one file.
        progress: Called with the step (`"writing"`, `"checking"`), the number of leaves done, and the number of all.

    Raises:
        FileExistsError: The destination is a file, or a folder that is not empty.
        CheckpointError: The source cannot be used, timm has no such model, or the result differs from the source.
        CatalogueError, FileNotFoundError, HubError: As `load` does.
    """
    folder = Path(destination)
    if folder.suffix in (".safetensors", ".json") or folder.is_file():
        raise FileExistsError(f"{folder} is a file by its name; the destination is a folder")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"the folder {folder} is not empty")
    info = resolve(source)
    model, arrays, fresh = _arrays(info)
    if to == "timm":
        document, tensors = to_timm.document(info, model), to_timm.tensors(model, arrays)
        max_shard_size = sys.maxsize
    else:
        document = native.document(model, _preprocessing(info), info.labels, info.license, _note(info))
        tensors = {path: Tensor(array) for path, array in arrays.items()}
    tensors = {name: t._replace(as_dtype=np.float32) if t.dtype == np.float64 else t for name, t in tensors.items()}

    paths = dict(zip(tensors, arrays)) if to == "flaim" else {tensor_name(path): path for path in arrays}
    left = len(arrays)

    def written(name: str) -> None:
        nonlocal left
        if name in paths:  # a leaf, not one of torch's counters
            left -= 1
            release(arrays[paths[name]])
            progress("writing", len(arrays) - left, len(arrays))

    write_checkpoint(folder, document, tensors, max_shard_size=max_shard_size, written=written)
    return Report(
        config=info,
        files=tuple(sorted(folder.glob("model*.safetensors*"))),
        leaves=len(arrays) - len(fresh),
        fresh=fresh,
        dtypes=dict(sum((Counter({tensor.dtype.name: tensor.nbytes}) for tensor in tensors.values()), Counter())),
        difference=_check(folder, model, arrays, progress),
    )


def _arrays(info: CheckpointInfo) -> tuple[Model, dict[str, Any], tuple[str, ...]]:
    """A checkpoint's model, the model's leaves, and the paths of those that the checkpoint lacks."""
    tensors, where = read(info)
    if info.n_classes is None:
        info = info.replace(n_classes=classes_in(model_of(info), tensors, info, where=where))
    model = model_of(info)
    arrays, fresh = lay_out(model, tensors, info, where=where)
    drawn = core.flatten(core.init_leaves(core.unflatten(fresh), jax.random.key(0)))
    return model, {path: arrays.get(path, drawn.get(path)) for path in core.flatten(model.spec())}, tuple(fresh)


def _check(folder: Path, model: Model, arrays: Mapping[str, Any], progress: Progress) -> float:
    """The largest difference between the source's leaves and those loaded from the folder."""
    again, results, _ = _arrays(resolve(folder))
    if again != model:
        raise CheckpointError(f"{folder} was written as a {model}, but reads as a {again}")
    largest, wrong = 0.0, []
    for done, (path, array) in enumerate(arrays.items(), 1):
        expected, result = np.asarray(array), np.asarray(results[path])
        rounded = expected.astype(result.dtype, copy=False)
        if not np.all((rounded == result) | ((rounded != rounded) & (result != result))):  # NaNs count as equal
            wrong.append(path)
        if expected.dtype != result.dtype:
            largest = max(largest, float(np.abs(expected - result.astype(expected.dtype)).max(initial=0)))
        for view in (array, results[path]):
            release(view)
        progress("checking", done, len(arrays))
    if wrong:
        raise CheckpointError(f"{folder} does not hold what was written to it:\n  " + "\n  ".join(wrong))
    return largest


def _preprocessing(info: CheckpointInfo) -> dict[str, Any]:
    return {name: info.preprocessing[name] for name in PREPROCESSING if name in info.preprocessing}


def _note(info: CheckpointInfo) -> str | None:
    origin = info.timm_id or info.location.repo or info.location.url or info.source
    return info.note or (f"converted from {origin}" if origin else None)
