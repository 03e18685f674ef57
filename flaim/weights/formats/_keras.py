"""`.keras`: a zip file with the model's configuration and an HDF5 file of its weights."""

from pathlib import Path
from typing import Any

from flaim.weights.formats import _hdf5, _json
from flaim.weights.formats._mapped import intact
from flaim.weights.formats._zip import Archive

_WEIGHTS = "model.weights.h5"
_DOCUMENTS = ("config.json", "metadata.json")


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The weights, as views of the file."""
    archive = Archive(path, data)
    return _hdf5.tensors(archive.name(_WEIGHTS), archive.read(_WEIGHTS))


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """The configuration, and the attributes of the weights."""
    archive = Archive(path, data)
    documents = {}
    for name in _DOCUMENTS:
        if name in archive.members:
            with intact(path, "Keras", f", {name},"):
                documents[name] = _json.parse(str(archive.read(name), "utf-8"))
    return documents | _hdf5.documents(archive.name(_WEIGHTS), archive.read(_WEIGHTS))
