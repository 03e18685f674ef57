"""The catalogue of published checkpoints, and the lookup of their names.

`flaim.jsonl` has the (model, parameters) pairs of the original flaim, `timm/<family>.jsonl` timm's checkpoints of each
family (written by `tools/make_catalogue.py`), `keras.jsonl` those of Keras (`tools/make_keras_catalogue.py`), and
`accuracy.csv` the accuracies that timm publishes. A name is looked up in flaim's table first: `"resnet18"` is flaim's
model, `"resnet18.a1_in1k"` is timm's checkpoint, `"resnet50.keras_in1k"` is Keras'.
"""

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, overload

from flaim import _index
from flaim.weights.catalogue._tables import TIMM, Accuracy, accuracies, is_implemented, rows, table
from flaim.weights.errors import CatalogueError
from flaim.weights.info import CheckpointInfo, Preprocessing

__all__ = [
    "TIMM",
    "Accuracy",
    "Listing",
    "accuracies",
    "architectures",
    "find",
    "is_implemented",
    "list_models",
    "rows",
]


@dataclass(frozen=True)
class Listing:
    """A checkpoint with its figures; None if a figure is not known.

    Attributes:
        model, params: The names that `get_model` takes.
        input_size: Height and width of its images.
        top1, top5: Accuracy on ImageNet-1k in percent, as timm publishes it.
        top1_size: Side of the images at which it was measured.
        parameters: Number of parameters of the architecture, with its published classifier.
        gmacs: Billions (1e9) of multiply-adds for one image of the architecture's default size.
        license: SPDX identifier, or the name its authors gave.
        info: The catalogue's full description.
    """

    model: str
    params: str
    input_size: tuple[int, int]
    top1: float | None
    top5: float | None
    top1_size: int | None
    parameters: int | None
    gmacs: float | None
    license: str | None
    info: CheckpointInfo


def listing(row: CheckpointInfo) -> Listing:
    """A row with its figures."""
    measured = next(iter(accuracies(row)), None)
    known = _index.facts_of(row.architecture) if is_implemented(row) else None
    return Listing(
        model=row.model,
        params=row.params,
        input_size=row.input_size,
        top1=measured.top1 if measured else None,
        top5=measured.top5 if measured else None,
        top1_size=measured.size if measured else None,
        parameters=known["params"] if known else None,
        gmacs=known["macs"] / 1e9 if known else None,
        license=row.license,
        info=row,
    )


@overload
def list_models(
    model_pattern: str = "", params_pattern: str | int = "", *, timm: bool = False, details: Literal[False] = False
) -> list[tuple[str, str]]: ...


@overload
def list_models(
    model_pattern: str = "", params_pattern: str | int = "", *, timm: bool = False, details: Literal[True]
) -> list[Listing]: ...


def list_models(
    model_pattern: str = "", params_pattern: str | int = "", *, timm: bool = False, details: bool = False
) -> list[tuple[str, str]] | list[Listing]:
    """The (model, parameters) pairs that `get_model` takes.

    Args:
        model_pattern: Regular expression that matches anywhere in the model's name.
        params_pattern: The same for the parameters' name; an integer is a resolution.
        timm: Add timm's (architecture, tag) pairs after flaim's own and Keras'.
        details: Return a `Listing` for each pair, with accuracy, parameters, multiply-adds and license.
    """
    try:
        model_regex = re.compile(model_pattern)
        params_regex = re.compile("" if isinstance(params_pattern, int) else params_pattern)
    except re.error as error:
        raise ValueError(f"{error.pattern!r} is not a regular expression: {error}") from None
    found = [
        row
        for row in rows(timm=timm)
        if model_regex.search(row.model)
        and params_regex.search(row.params)
        and (not isinstance(params_pattern, int) or max(row.input_size) == params_pattern)
        and is_implemented(row)
    ]
    return [listing(row) for row in found] if details else [(row.model, row.params) for row in found]


def find(model_name: str, pretrained: str | int | bool = True) -> CheckpointInfo:
    """The catalogue's row for a model and its parameters.

    Args:
        model_name: flaim's model name, timm's architecture, or `"architecture.tag"` of timm's or Keras' checkpoints;
            `"keras_in1k"` is the one of Keras' default image size.
        pretrained: A parameters name (or timm's tag), a resolution, or True for the default. For flaim's models, these
            criteria select the default, in this order: 1000 classes, a name that begins with `"in1k_"`, the lowest
            resolution, the first line of the table. For timm's architectures it is timm's default tag, for others
            Keras'. False asks for no parameters, so an architecture without checkpoints is accepted too.

    Raises:
        CatalogueError: There is no such model (the message gives the nearest names) or parameters (the message gives
            those that exist), or the family is not implemented.
    """
    architecture, _, tag = model_name.partition(".")
    candidates = _candidates(model_name)
    if not candidates and pretrained is not False:  # the user's own file would not use Keras' padding and epsilons
        candidates = table("keras").get(model_name, [])
    if not candidates and tag:
        known = [*table("timm").get(architecture, []), *table("keras").get(architecture, [])]
        if not known:
            raise _unknown_model(model_name)
        raise CatalogueError(f"{architecture} has no checkpoint {tag!r}; it has {_names(known)}")
    if not candidates:
        return _without_checkpoints(model_name, pretrained)
    if not any(map(is_implemented, candidates)):
        row = candidates[0]
        raise CatalogueError(f"{model_name}, of the family {row.family}, is not yet implemented")
    if isinstance(pretrained, bool):
        return candidates[0]
    if tag:
        raise CatalogueError(f"{model_name} names its parameters already; pretrained={pretrained!r} names others")
    if isinstance(pretrained, int):
        chosen = [row for row in candidates if max(row.input_size) == pretrained]
        wanted = f"at resolution {pretrained}"
    else:
        chosen = [row for row in candidates + table("timm").get(model_name, []) if row.params == pretrained]
        chosen = chosen or _named_by_keras(f"{model_name}.{pretrained}")
        wanted = f"called {pretrained!r}"
    if not chosen:
        raise CatalogueError(f"{model_name} has no parameters {wanted}; it has {_names(candidates)}")
    return chosen[0]


def architectures(model_name: str) -> set[str]:
    """The architectures that a model's name stands for; flaim's names cover several input sizes."""
    return {row.architecture for row in _candidates(model_name)} or {model_name}


def _candidates(name: str) -> list[CheckpointInfo]:
    """Rows that `name` may mean, the default one first."""
    flaim, timm = table("flaim"), table("timm")
    if name in flaim:
        return sorted(flaim[name], key=_preference)
    if name in timm:
        return timm[name]
    return _timm_ids().get(name, [])[:1] or _named_by_keras(name)


def _named_by_keras(name: str) -> list[CheckpointInfo]:
    """Keras' checkpoint called `"architecture.keras_in1k_224"`; without the size, the default one."""
    architecture, _, params = name.partition(".")
    known = table("keras").get(architecture, [])
    return [row for row in known if params in (row.params, row.params.rpartition("_")[0])][:1]


@functools.cache
def _timm_ids() -> dict[str, list[CheckpointInfo]]:
    """Rows by timm's name. timm's table has more details, flaim's also has families that are not implemented yet."""
    index: dict[str, list[CheckpointInfo]] = {}
    for row in [*rows(flaim=False, keras=False), *rows(timm=False, keras=False)]:
        if row.timm_id:
            index.setdefault(row.timm_id, []).append(row)
            if row.model != row.architecture:
                index.setdefault(row.architecture, []).append(row)
    return index


def _preference(row: CheckpointInfo) -> tuple:
    return row.n_classes != 1000, not row.params.startswith("in1k_"), row.input_size


def _names(candidates: Iterable[CheckpointInfo]) -> str:
    return ", ".join(row.params for row in candidates)


def _without_checkpoints(name: str, pretrained: str | int | bool) -> CheckpointInfo:
    from flaim.registry import create  # imports jax, which the tables alone do not need

    if not _index.is_architecture(name):
        raise _unknown_model(name)
    if pretrained is not False:
        raise CatalogueError(
            f"there are no published parameters for {name}: pass pretrained=False or the path of a checkpoint"
        )
    model = create(name)
    return CheckpointInfo(
        model=name,
        family=_index.family_of(name),
        architecture=name,
        n_classes=model.n_classes,
        preprocessing=Preprocessing(input_size=model.input_size),
    )


def _unknown_model(name: str) -> CatalogueError:
    known = {*table("flaim"), *table("timm"), *table("keras"), *_index.list_architectures()}
    nearest = difflib.get_close_matches(name.partition(".")[0], known, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "list_models() lists what there is"
    return CatalogueError(f"there is no model called {name!r}; {hint}")
