"""Where a checkpoint is: the catalogue, a repository on the Hub, a folder or a file."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from flaim.models import family_of
from flaim.weights import catalogue, hub, native, readers, timm
from flaim.weights.config import Config
from flaim.weights.errors import CatalogueError, CheckpointError, FileMissingError

_HUB, _LOCAL = ("hf-hub:", "hf_hub:"), "local-dir:"


def resolve(model_name: str | PathLike, pretrained: str | int | bool | PathLike = True) -> Config:
    """What a model's name and `pretrained` mean together.

    Args:
        model_name: A name of the catalogue (see `catalogue.find`), `"hf-hub:organisation/name"`, perhaps with
            `"@revision"`, `"local-dir:path"`, or a path.
        pretrained: As `catalogue.find` has it, or a checkpoint for the named model: a path, `"hf-hub:..."`,
            `"local-dir:..."`. Its own configuration then decides; a file without one is taken to be of the named
            model, with as many classes as its classifier has (`n_classes=None`).

    Raises:
        CatalogueError: No such model, parameters or family.
        CheckpointError: A configuration cannot be used, or is of another model than `model_name`.
        FileNotFoundError: There is no such folder or file.
        HubError: The Hub cannot give the configuration.
    """
    if is_source(model_name):
        if not isinstance(pretrained, bool):
            raise CatalogueError(f"{model_name} names its parameters already; pretrained={pretrained!r} names others")
        config = _configuration(model_name)
        if config is None:
            raise CheckpointError(
                f"{model_name} has no config.json to say which model it is: name the model, "
                f"get_model(name, pretrained={_bare(model_name)!r})"
            )
        return config
    model_name = str(model_name)
    if isinstance(pretrained, int):
        return catalogue.find(model_name, pretrained)
    if not is_source(pretrained):
        try:
            return catalogue.find(model_name, str(pretrained))
        except CatalogueError:
            if not Path(pretrained).exists():
                raise
    model = catalogue.find(model_name, False)
    config = _configuration(pretrained)
    if config is None:
        return Config(
            model=model.model,
            family=model.family,
            architecture=model.architecture,
            overrides=model.overrides,
            n_classes=None,
            input_size=model.input_size,
            path=_bare(pretrained),
            **{name: value for name, value in model.preprocessing.items() if name != "input_size"},
        )
    if config.architecture not in catalogue.architectures(model_name):
        raise CheckpointError(
            f"{pretrained} holds a {config.architecture}, not a {model_name}; "
            f"get_model({str(pretrained)!r}) loads it as what it is"
        )
    return config


def is_source(name: str | PathLike) -> bool:
    """Whether `name` says where a checkpoint is rather than what it is called."""
    if isinstance(name, PathLike):
        return True
    return name.startswith((*_HUB, _LOCAL)) or "/" in name or "\\" in name or name.endswith(".safetensors")


def read(config: Config) -> tuple[dict[str, np.ndarray], str]:
    """The checkpoint's tensors, memory-mapped, and the name of the file they are in; downloaded where need be."""
    if config.path is not None:
        file = _weights_file(Path(config.path))
    elif config.repo is not None:
        try:
            file = hub.fetch(config.repo, native.WEIGHTS)
        except FileMissingError as error:
            raise FileMissingError(f"{error}; flaim reads safetensors files, not pickles") from error
    else:
        origin = f"; the original is {config.source} ({config.note})" if config.source else ""
        raise CatalogueError(
            f"no repository is known to have {config.model} {config.params} as a safetensors file{origin}. "
            f"With a converted copy: get_model({config.model!r}, pretrained='path/to/file.safetensors')"
        )
    return readers.read(file), str(file)


def _bare(source: str | PathLike) -> str:
    return str(source).removeprefix(_LOCAL)


def _configuration(source: str | PathLike) -> Config | None:
    """The configuration that comes with a checkpoint; None for a folder or file without one."""
    if isinstance(source, str) and source.startswith(_HUB):
        repo = source.partition(":")[2]
        config = _parse(hub.fetch(repo, native.CONFIG), repo)
        return config.replace(repo=repo)
    path = Path(_bare(source))
    if not path.exists():
        hint = "; a repository on the Hub is 'hf-hub:organisation/name'" if isinstance(source, str) else ""
        raise FileNotFoundError(f"there is no folder or file {path}{hint}")
    # A file that goes by the usual name belongs to the configuration beside it.
    folder = path if path.is_dir() else path.parent if path.name == native.WEIGHTS else None
    if folder is None or not (folder / native.CONFIG).is_file():
        return None
    return _parse(folder / native.CONFIG, str(folder / native.CONFIG)).replace(path=str(path))


def _parse(file: Path, where: str) -> Config:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where} holds a {type(data).__name__}, expected an object")
    own = data.get("format") == native.FORMAT
    architecture = data.get("model" if own else "architecture")
    if not isinstance(architecture, str):
        kind = f"a {data['model_type']} of transformers" if "model_type" in data else "no model that flaim knows"
        raise CheckpointError(f"{where} describes {kind}; flaim reads its own checkpoints and timm's")
    try:
        family = family_of(architecture)
    except LookupError as error:
        raise CheckpointError(f"{where}: {error}") from error
    try:
        return (native if own else timm).config_from(data, family, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where} is incomplete or malformed: {type(error).__name__} {error}") from error


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / native.WEIGHTS).is_file():
        return path / native.WEIGHTS
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    content = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
    raise FileNotFoundError(f"{path} has no {native.WEIGHTS}; it has {content}")
