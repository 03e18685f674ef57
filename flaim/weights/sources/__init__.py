"""Find the checkpoint of a name, a path or an address: its location and its description."""

import functools
import json
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import flaim_core as core
from flaim.weights import catalogue, formats
from flaim.weights.assign import model_of
from flaim.weights.converters import CONVERTERS
from flaim.weights.converters.native import CONFIG, INDEX, WEIGHTS, has_paths, own_config
from flaim.weights.errors import CatalogueError, CheckpointError, FileMissingError, HubError
from flaim.weights.info import CheckpointInfo, Location
from flaim.weights.sources import https, hub

_HUB, _LOCAL = ("hf-hub:", "hf_hub:", "hf:"), "local-dir:"
_REMOTE = {"https://": "https://", "gs://": "https://storage.googleapis.com/"}  # and the server

# Usual names of weights files, of which the first that exists is used; and of the JSON documents beside them.
FILES = (
    WEIGHTS,
    INDEX,
    "flax_model.msgpack",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DOCUMENTS = (CONFIG, "preprocessor_config.json", "processor_config.json")
_SUFFIXES = (".safetensors", ".h5", ".hdf5", ".keras", ".npz", ".pth", ".pt", ".bin", ".msgpack", ".pickle", ".pkl")


def resolve(model_name: str | PathLike, pretrained: str | int | bool | PathLike = True) -> CheckpointInfo:
    """The checkpoint that a model's name and `pretrained` select.

    Args:
        model_name: A name in the catalogue (see `catalogue.find`), `"hf-hub:organisation/name"` (or `"hf:..."`),
            optionally with `"@revision"` and the path of a file in the repository, `"local-dir:path"`, a path, or the
            address of a file, `"https://..."` or `"gs://..."`.
        pretrained: As in `catalogue.find`, or a checkpoint for the named model: a path, `"hf-hub:..."`,
            `"local-dir:..."`, an address. Its own configuration takes precedence. A file without one is taken to be of
            the named model, and its classifier gives the number of classes (`n_classes=None`).

    Raises:
        CatalogueError: No such model, parameters or family.
        CheckpointError: A configuration cannot be used, or is of another model than `model_name`.
        FileNotFoundError: There is no such folder or file.
        HubError: The configuration could not be downloaded.
    """
    if is_source(model_name):
        if not isinstance(pretrained, bool):
            raise CatalogueError(f"{model_name} names its parameters already; pretrained={pretrained!r} names others")
        info = describe(model_name)
        if not info.architecture:
            raise CheckpointError(
                f"{model_name} has no config.json to say which model it is, and nothing in it does: name the "
                f"model, get_model(name, pretrained={_bare(model_name)!r})"
            )
        return info
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
    info = describe(pretrained)
    if not info.architecture:
        return info.replace(
            model=model.model,
            family=model.family,
            architecture=model.architecture,
            overrides=model.overrides,
            n_classes=None,
            preprocessing=model.preprocessing,
        )
    if not _fits(info, model):
        raise CheckpointError(
            f"{pretrained} holds a {info.architecture}, not a {model_name}; "
            f"get_model({str(pretrained)!r}) loads it as what it is"
        )
    return info


def is_source(name: str | PathLike) -> bool:
    """Whether `name` is the location of a checkpoint rather than a name in the catalogue."""
    if isinstance(name, PathLike):
        return True
    return (
        name.startswith((*_HUB, _LOCAL, *_REMOTE)) or "/" in name or "\\" in name or name.endswith((*_SUFFIXES, INDEX))
    )


def locate(source: str | PathLike) -> Location:
    """The location of a source (see `is_source`); nothing is downloaded.

    Raises:
        FileNotFoundError: There is no such folder or file.
    """
    if isinstance(source, str) and source.startswith(_HUB):
        name = source.partition(":")[2]
        if name.count("/") > 1 and name.endswith(_SUFFIXES):
            organisation, repo, file = name.split("/", 2)
            return Location(repo=f"{organisation}/{repo}", file=file)
        return Location(repo=name)
    for scheme, server in _REMOTE.items():
        if isinstance(source, str) and source.startswith(scheme):
            return Location(url=server + source.removeprefix(scheme))
    name = _bare(source)
    if not Path(name).exists():
        where = f"; a repository on the Hub is '{_HUB[0]}organisation/name'" if isinstance(source, str) else ""
        raise FileNotFoundError(f"there is no folder or file {name}{where}")
    return Location(path=name)


def read(info: CheckpointInfo) -> tuple[dict[str, Any], str]:
    """Download the checkpoint if needed; its tensors, as `formats.read` returns them, and the name of their file.

    Raises:
        CatalogueError: The catalogue has no location for them.
        FileNotFoundError, HubError: There is no such file, or it could not be downloaded.
        CheckpointError: The file is damaged.
    """
    if info.location == Location():
        origin = f"; the original is {info.source} ({info.note})" if info.source else ""
        raise CatalogueError(
            f"no repository is known to have {info.model} {info.params} as a safetensors file{origin}. "
            f"With a converted copy: get_model({info.model!r}, pretrained='path/to/file.safetensors')"
        )
    file = weights_file(info.location)
    return formats.read(file), str(file)


def weights_file(location: Location) -> Path:
    """The file with a checkpoint's weights, or the index of its shards; downloaded if needed.

    Raises:
        FileNotFoundError, HubError: There is no such file, or it could not be downloaded.
    """
    if location.path is not None:
        return _in_folder(Path(location.path))
    if location.repo is not None:
        return _in_repository(location.repo, location.file)
    if location.url is None:
        raise FileNotFoundError("the checkpoint has no known address: neither a repository nor a URL")
    return https.fetch(location.url, location.digest)


def _in_folder(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [path / name for name in FILES if (path / name).is_file()][:1]
    files = files or [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    if len(files) == 1:
        return files[0]
    content = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
    raise FileNotFoundError(f"{path} has none of {', '.join(FILES)}; it has {content}")


def _in_repository(repo: str, file: str | None) -> Path:
    if file is not None:
        return hub.fetch(repo, file)
    for i, name in enumerate(FILES):
        try:
            path = hub.fetch(repo, name)
        except FileMissingError:
            continue
        except HubError:  # without a connection, the cache may still have one of the others
            if not any(hub.is_cached(repo, other) for other in FILES[i + 1 :]):
                raise
            continue
        if name.endswith(".index.json"):
            for shard in formats.shards_of(path):
                hub.fetch(repo, shard)
        return path
    raise FileMissingError(f"{repo} has none of {', '.join(FILES)}; '{_HUB[0]}{repo}/...' names another file of it")


def _bare(source: str | PathLike) -> str:
    return str(source).removeprefix(_LOCAL)


def describe(source: str | PathLike) -> CheckpointInfo:
    """Describe a checkpoint from its documents or its tensors' names; `architecture` is empty if it is unknown.

    Raises:
        As `resolve`.
    """
    location = locate(source)
    if location.repo is not None:
        where, documents = str(source).partition(":")[2], _fetched(location.repo, location.file)
    else:
        where = str(location.url or location.path)
        documents = _found(str(weights_file(location) if location.url else location.path))
    return _described(location, documents, where).replace(location=location)


def _fetched(repo: str, file: str | None) -> dict[str, Mapping]:
    """The documents that come with a checkpoint on the Hub."""
    documents: dict[str, Mapping] = {}
    for document in _DOCUMENTS if file is None else ():
        try:
            path = hub.fetch(repo, document)
        except FileMissingError:
            continue
        documents[document] = _json(path, f"{repo}, {document}")
        if "model_type" not in documents[document]:  # only transformers has further documents
            break
    return documents


def _found(name: str) -> dict[str, Mapping]:
    """The documents that come with a local checkpoint."""
    path = Path(name)
    # A file with one of the usual names belongs to the documents beside it.
    folder = path if path.is_dir() else path.parent if path.name in FILES else None
    files = [folder / document for document in _DOCUMENTS] if folder else []
    documents = {file.name: _json(file, str(file)) for file in files if file.is_file()}
    if path.is_file() or any((path / weights).is_file() for weights in (WEIGHTS, INDEX)):
        notes = formats.metadata(_in_folder(path)).get("__metadata__", {})
        config = own_config(documents.get(CONFIG), notes)
        documents |= {} if config is None else {CONFIG: config}
    return documents


def _json(file: Path, where: str) -> Mapping:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where} holds a {type(data).__name__}, expected an object")
    return data


class _Deferred(Mapping):
    """A mapping that is loaded on first use."""

    def __init__(self, load: Callable[[], Mapping]) -> None:
        self._load = functools.cache(load)

    def __getitem__(self, name: str) -> Any:
        return self._load()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())


def _described(location: Location, documents: Mapping[str, Mapping], where: str) -> CheckpointInfo:
    """The description from the first converter that recognises the checkpoint's documents or tensors' names."""
    file = functools.cache(lambda: weights_file(location))
    tensors = _Deferred(lambda: formats.read(file()))
    everything: Mapping = ChainMap(dict(documents), _Deferred(lambda: formats.metadata(file())))  # type: ignore
    config = documents.get(CONFIG)
    unknown = CheckpointError(
        f"{where} describes no model that flaim knows, and its tensors have no names that it knows"
    )
    try:
        for name, converter in CONVERTERS.items():
            if converter.recognises(tensors, everything):
                return converter.describe(tensors, everything, where).replace(converter=name)
        if config is not None:
            raise unknown
        return CheckpointInfo(n_classes=None, converter="flaim" if has_paths(tensors) else "timm")
    except FileNotFoundError:
        if config is None or "model_type" in config:
            raise
        raise unknown from None
    except (CheckpointError, OSError):
        raise
    except KeyError as error:
        raise _malformed(where, error) from error
    except LookupError as error:  # no such architecture
        raise CheckpointError(f"{where}: {error}") from error
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise _malformed(where, error) from error


def _malformed(where: str, error: Exception) -> CheckpointError:
    return CheckpointError(f"{where} is incomplete or malformed: {type(error).__name__} {error}")


def _fits(found: CheckpointInfo, named: CheckpointInfo) -> bool:
    """Whether a checkpoint's model has the name, or the leaves, of the requested model."""
    if found.architecture in catalogue.architectures(named.model):
        return True
    if found.family != named.family:
        return False
    shapes = []
    for info in (found, named):
        try:
            model = model_of(info.replace(in_channels=found.in_channels), found.n_classes, found.input_size)
            shapes.append({path: leaf.shape for path, leaf in core.flatten(model.spec()).items()})
        except ValueError:  # the model does not support this image size
            return False
    return shapes[0] == shapes[1]
