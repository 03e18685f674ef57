"""Where a checkpoint is: the catalogue, the Hub, a folder, a file or a file's address; and whose names it has."""

import importlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import flaim_core as core
from flaim.models import create, family_of
from flaim.weights import catalogue, download, hub, native, readers, timm
from flaim.weights.config import Config
from flaim.weights.errors import CatalogueError, CheckpointError, FileMissingError, HubError

_HUB, _LOCAL = ("hf-hub:", "hf_hub:", "hf:"), "local-dir:"
_REMOTE = {"https://": "https://", "gs://": "https://storage.googleapis.com/"}  # and where it is served

# The files that a checkpoint's weights may be in, the first that is there counts; and JSON documents beside them.
WEIGHTS = (
    native.WEIGHTS,
    native.INDEX,
    "flax_model.msgpack",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DOCUMENTS = (native.CONFIG, "preprocessor_config.json", "processor_config.json")
_SUFFIXES = (".safetensors", ".h5", ".hdf5", ".keras", ".npz", ".pth", ".pt", ".bin", ".msgpack", ".pickle", ".pkl")

# Modules of `flaim.weights` for names other than timm's and our own, in the order in which they are asked.
_DIALECTS = ("transformers", "big_vision", "original", "keras")


def resolve(model_name: str | PathLike, pretrained: str | int | bool | PathLike = True) -> Config:
    """What a model's name and `pretrained` mean together.

    Args:
        model_name: A name of the catalogue (see `catalogue.find`), `"hf-hub:organisation/name"` (or `"hf:..."`),
            perhaps with `"@revision"` and the path of a file in the repository, `"local-dir:path"`, a path, or the
            address of a file, `"https://..."` or `"gs://..."`.
        pretrained: As `catalogue.find` has it, or a checkpoint for the named model: a path, `"hf-hub:..."`,
            `"local-dir:..."`, an address. Its own configuration then decides; a file without one is taken to be of the
            named model, with as many classes as its classifier has (`n_classes=None`).

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
        if not config.architecture:
            raise CheckpointError(
                f"{model_name} has no config.json to say which model it is, and nothing in it does: name the "
                f"model, get_model(name, pretrained={_bare(model_name)!r})"
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
    if not config.architecture:
        return config.replace(
            model=model.model,
            family=model.family,
            architecture=model.architecture,
            overrides=model.overrides,
            n_classes=None,
            input_size=model.input_size,
            **{name: value for name, value in model.preprocessing.items() if name != "input_size"},
        )
    if not _fits(config, model):
        raise CheckpointError(
            f"{pretrained} holds a {config.architecture}, not a {model_name}; "
            f"get_model({str(pretrained)!r}) loads it as what it is"
        )
    return config


def is_source(name: str | PathLike) -> bool:
    """Whether `name` says where a checkpoint is rather than what it is called."""
    if isinstance(name, PathLike):
        return True
    return (
        name.startswith((*_HUB, _LOCAL, *_REMOTE))
        or "/" in name
        or "\\" in name
        or name.endswith((*_SUFFIXES, native.INDEX))
    )


def place_of(source: str | PathLike) -> Config:
    """Where a source is, as `is_source` has them, whatever it may hold; nothing is downloaded.

    Raises:
        FileNotFoundError: There is no such folder or file.
    """
    if isinstance(source, str) and source.startswith(_HUB):
        name = source.partition(":")[2]
        if name.count("/") > 1 and name.endswith(_SUFFIXES):
            organisation, repo, file = name.split("/", 2)
            return Config(repo=f"{organisation}/{repo}", file=file)
        return Config(repo=name)
    for scheme, server in _REMOTE.items():
        if isinstance(source, str) and source.startswith(scheme):
            return Config(url=server + source.removeprefix(scheme))
    name = _bare(source)
    if not Path(name).exists():
        where = f"; a repository on the Hub is '{_HUB[0]}organisation/name'" if isinstance(source, str) else ""
        raise FileNotFoundError(f"there is no folder or file {name}{where}")
    return Config(path=name)


def read(config: Config) -> tuple[dict[str, Any], str]:
    """The checkpoint's tensors as `readers.read` has them, and the name of the file they are in, downloaded first."""
    file = weights_file(config)
    return readers.read(file), str(file)


def weights_file(config: Config) -> Path:
    """The file that a checkpoint's weights are in, or the index of several; downloaded where need be.

    Raises:
        CatalogueError: The catalogue knows no place where they could be had.
        FileNotFoundError, HubError: They are not there.
    """
    if config.path is not None:
        return _in_folder(Path(config.path))
    if config.repo is not None:
        return _in_repository(config.repo, config.file)
    if config.url is not None:
        return download.fetch(config.url, config.digest)
    origin = f"; the original is {config.source} ({config.note})" if config.source else ""
    raise CatalogueError(
        f"no repository is known to have {config.model} {config.params} as a safetensors file{origin}. "
        f"With a converted copy: get_model({config.model!r}, pretrained='path/to/file.safetensors')"
    )


def _in_folder(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [path / name for name in WEIGHTS if (path / name).is_file()][:1]
    files = files or [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    if len(files) == 1:
        return files[0]
    content = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
    raise FileNotFoundError(f"{path} has none of {', '.join(WEIGHTS)}; it has {content}")


def _in_repository(repo: str, file: str | None) -> Path:
    if file is not None:
        return hub.fetch(repo, file)
    for i, name in enumerate(WEIGHTS):
        try:
            path = hub.fetch(repo, name)
        except FileMissingError:
            continue
        except HubError:  # without a connection, the cache may have another of them
            if not any(hub.is_cached(repo, other) for other in WEIGHTS[i + 1 :]):
                raise
            continue
        if name.endswith(".index.json"):
            for shard in readers.shards_of(path):
                hub.fetch(repo, shard)
        return path
    raise FileMissingError(f"{repo} has none of {', '.join(WEIGHTS)}; '{_HUB[0]}{repo}/...' names another file of it")


def _bare(source: str | PathLike) -> str:
    return str(source).removeprefix(_LOCAL)


def _configuration(source: str | PathLike) -> Config:
    """Where a checkpoint is, and what it says of itself, in documents or by its tensors' names, perhaps nothing."""
    place = place_of(source)
    if place.repo is not None:
        where, documents = str(source).partition(":")[2], _fetched(place.repo, place.file)
    else:
        where = str(place.url or place.path)
        documents = _found(str(weights_file(place) if place.url else place.path))
    config = documents.get(native.CONFIG, {})
    if config.get("format") == native.FORMAT or isinstance(config.get("architecture"), str):
        found: Config | None = _parse(config, where)
    else:
        found = _recognised(place, documents, where)
    return found.replace(path=place.path, repo=place.repo, file=place.file, url=place.url) if found else place


def _fetched(repo: str, file: str | None) -> dict[str, Mapping]:
    """The documents that come with a checkpoint on the Hub."""
    documents: dict[str, Mapping] = {}
    for document in _DOCUMENTS if file is None else ():
        try:
            path = hub.fetch(repo, document)
        except FileMissingError:
            continue
        documents[document] = _json(path, f"{repo}, {document}")
        if "model_type" not in documents[document]:  # only transformers keeps others
            break
    return documents


def _found(name: str) -> dict[str, Mapping]:
    """The documents that come with a checkpoint on this machine."""
    path = Path(name)
    # A file that goes by a usual name belongs to the documents beside it.
    folder = path if path.is_dir() else path.parent if path.name in WEIGHTS else None
    files = [folder / document for document in _DOCUMENTS] if folder else []
    documents = {file.name: _json(file, str(file)) for file in files if file.is_file()}
    if path.is_file() or any((path / weights).is_file() for weights in (native.WEIGHTS, native.INDEX)):
        notes = readers.metadata(_in_folder(path)).get("__metadata__", {})
        config = native.own_config(documents.get(native.CONFIG), notes)
        documents |= {} if config is None else {native.CONFIG: config}
    return documents


def _json(file: Path, where: str) -> Mapping:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where} holds a {type(data).__name__}, expected an object")
    return data


def _parse(data: Mapping, where: str) -> Config:
    """The configuration in a `config.json` of flaim's or of timm's."""
    own = data.get("format") == native.FORMAT
    try:
        family = family_of(data["model" if own else "architecture"])
        config = (native if own else timm).config_from(data, family, where)
    except LookupError as error:
        if not isinstance(error, KeyError):
            raise CheckpointError(f"{where}: {error}") from error
        raise _malformed(where, error) from error
    except (TypeError, AttributeError) as error:
        raise _malformed(where, error) from error
    return config.replace(dialect="flaim" if own else "timm")


def _malformed(where: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{where} is incomplete or malformed: {type(error).__name__} {error}")


def _recognised(place: Config, documents: Mapping[str, Mapping], where: str) -> Config | None:
    """The configuration that other libraries' documents, or their names for tensors, stand for."""
    config = documents.get(native.CONFIG)
    unknown = CheckpointError(
        f"{where} describes no model that flaim knows, and its tensors have no names that it knows"
    )
    try:
        file = weights_file(place)
    except FileNotFoundError:
        if config is None or "model_type" in config:
            raise
        raise unknown from None
    tensors, files = readers.read(file), {**readers.metadata(file), **documents}
    for name in _DIALECTS:
        dialect = importlib.import_module(f"flaim.weights.{name}")
        try:
            if dialect.recognises(tensors, files):
                return dialect.config_from(tensors, files, where).replace(dialect=name)
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _malformed(where, error) from error
    if config is not None:
        raise unknown
    return None


def _fits(found: Config, named: Config) -> bool:
    """Whether the model that a checkpoint is of has the name, or the leaves, of the one that was asked for."""
    if found.architecture in catalogue.architectures(named.model):
        return True
    if found.family != named.family:
        return False
    shapes = []
    for config in (found, named):
        options = native.options_from(config.overrides, config.family)
        try:
            model = create(config.architecture, found.n_classes, found.input_size, found.in_channels, **options)
            shapes.append({path: leaf.shape for path, leaf in core.flatten(model.spec()).items()})
        except ValueError:  # not for images of that size
            return False
    return shapes[0] == shapes[1]
