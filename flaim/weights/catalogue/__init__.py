"""The catalogue: which checkpoints there are, as three tables of one line a checkpoint.

`flaim.jsonl` has the (model, parameters) pairs that flaim always had, `timm.jsonl` those of timm's checkpoints whose
family exists here (`tools/make_catalogue.py` writes it), `keras.jsonl` Keras' (`tools/make_keras_catalogue.py`). A name
is looked up in flaim's table first: `"resnet18"` is flaim's model, `"resnet18.a1_in1k"` is timm's checkpoint,
`"resnet50.keras_in1k"` is Keras'.
"""

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources

from flaim import _index
from flaim.weights.errors import CatalogueError
from flaim.weights.info import NORMALISATIONS, CheckpointInfo, Location, Preprocessing, size_of


@functools.cache
def _table(filename: str) -> dict[str, list[CheckpointInfo]]:
    """A table's rows by model name, in the order of its lines."""
    table: dict[str, list[CheckpointInfo]] = {}
    text = resources.files(__package__).joinpath(filename).read_text(encoding="utf-8")
    for line in text.splitlines():
        row = _row(json.loads(line))
        table.setdefault(row.model, []).append(row)
    return table


def _row(line: Mapping) -> CheckpointInfo:
    mean, std = NORMALISATIONS[line["norm"]]
    model, params, timm_id = line["model"], line["params"], line.get("timm")
    if "url" in line:  # a line of Keras' table
        line = {"architecture": model, **line}
    elif "flaim" not in line:  # of timm's
        timm_id = f"{model}.{params}"
    return CheckpointInfo(
        model=model,
        params=params,
        family=line["family"],
        architecture=line.get("architecture") or (timm_id or "").partition(".")[0],
        overrides=line.get("overrides", {}),
        n_classes=line["classes"] if line["classes"] != 0 else -1,
        in_channels=line.get("in_channels", 3),
        preprocessing=Preprocessing(
            input_size=size_of(line["size"]),
            mean=mean,
            std=std,
            interpolation=line.get("interpolation", "bicubic"),
            crop_pct=line.get("crop_pct"),
            crop_mode=line.get("crop_mode", "center"),
            test_input_size=size_of(line["test_size"]) if "test_size" in line else None,
            test_crop_pct=line.get("test_crop_pct"),
        ),
        location=Location(repo=line.get("hub"), url=line.get("url"), digest=line.get("digest")),
        converter="keras" if "url" in line else "timm",
        timm_id=timm_id,
        license=line["license"],
        flaim_repo=line.get("flaim"),
        note=line.get("note"),
        source=line.get("source"),
    )


def rows(*, flaim: bool = True, timm: bool = True, keras: bool = True) -> list[CheckpointInfo]:
    """The catalogue's rows, of the tables that are asked for; families that do not exist yet included."""
    wanted = {"flaim.jsonl": flaim, "keras.jsonl": keras, "timm.jsonl": timm}
    tables = [name for name, asked in wanted.items() if asked]
    return [row for name in tables for group in _table(name).values() for row in group]


def is_implemented(row: CheckpointInfo) -> bool:
    """Whether flaim has the row's architecture."""
    return _index.is_architecture(row.architecture)


def list_models(
    model_pattern: str = "", params_pattern: str | int = "", *, timm: bool = False
) -> list[tuple[str, str]]:
    """The (model, parameters) pairs that `get_model` takes.

    Args:
        model_pattern: Regular expression, to be found anywhere in the model's name.
        params_pattern: The same for the parameters' name; an integer is a resolution.
        timm: timm's (architecture, tag) pairs after flaim's own and Keras'.
    """
    try:
        model_regex = re.compile(model_pattern)
        params_regex = re.compile("" if isinstance(params_pattern, int) else params_pattern)
    except re.error as error:
        raise ValueError(f"{error.pattern!r} is not a regular expression: {error}") from None
    return [
        (row.model, row.params)
        for row in rows(timm=timm)
        if model_regex.search(row.model)
        and params_regex.search(row.params)
        and (not isinstance(params_pattern, int) or max(row.input_size) == params_pattern)
        and is_implemented(row)
    ]


def find(model_name: str, pretrained: str | int | bool = True) -> CheckpointInfo:
    """The catalogue's row for a model and its parameters.

    Args:
        model_name: flaim's model name, timm's architecture, or `"architecture.tag"` of timm's or Keras' checkpoints;
            `"keras_in1k"` is the one of Keras' own default size.
        pretrained: A parameters name (or timm's tag), a resolution, or True for the default: for flaim's models the
            ImageNet-1k classifier that is named plainly (`"in1k_224"`), at the lowest resolution, listed first, in
            this order of importance; for timm's architectures timm's own default tag, for others Keras'. False asks for
            no parameters, so that an architecture without any will do too.

    Raises:
        CatalogueError: There is no such model (the nearest names are given) or parameters (those that exist are), or
            the family is not implemented.
    """
    architecture, _, tag = model_name.partition(".")
    candidates = _candidates(model_name)
    if not candidates and pretrained is not False:  # a file of the user's own would not have Keras' arithmetic
        candidates = _table("keras.jsonl").get(model_name, [])
    if not candidates and tag:
        known = [*_table("timm.jsonl").get(architecture, []), *_table("keras.jsonl").get(architecture, [])]
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
        chosen = [row for row in candidates + _table("timm.jsonl").get(model_name, []) if row.params == pretrained]
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
    flaim, timm = _table("flaim.jsonl"), _table("timm.jsonl")
    if name in flaim:
        return sorted(flaim[name], key=_preference)
    if name in timm:
        return timm[name]
    return _timm_ids().get(name, [])[:1] or _named_by_keras(name)


def _named_by_keras(name: str) -> list[CheckpointInfo]:
    """Keras' checkpoint called `"architecture.keras_in1k_224"`; without the size, the default one."""
    architecture, _, params = name.partition(".")
    known = _table("keras.jsonl").get(architecture, [])
    return [row for row in known if params in (row.params, row.params.rpartition("_")[0])][:1]


@functools.cache
def _timm_ids() -> dict[str, list[CheckpointInfo]]:
    """Rows by timm's name. timm's own table says more of a checkpoint, flaim's has families that do not exist yet."""
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
    from flaim.registry import create  # brings jax; the tables alone do not need it

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
    known = {*_table("flaim.jsonl"), *_table("timm.jsonl"), *_table("keras.jsonl"), *_index.list_architectures()}
    nearest = difflib.get_close_matches(name.partition(".")[0], known, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "list_models() lists what there is"
    return CatalogueError(f"there is no model called {name!r}; {hint}")
