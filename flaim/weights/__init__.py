"""Checkpoints: where they come from, their conversion to flaim's variables, and how they are saved."""

from typing import TYPE_CHECKING

from flaim._lazy import lazy

if TYPE_CHECKING:
    from flaim.pretrained import Checkpoint, from_pretrained, get_model, load
    from flaim.weights.assign import model_of
    from flaim.weights.catalogue import list_models, rows
    from flaim.weights.errors import CatalogueError, CheckpointError, FileMissingError, HubError
    from flaim.weights.info import CheckpointInfo, Location, Preprocessing
    from flaim.weights.saving.native import save_pretrained
    from flaim.weights.saving.share import push_to_hub
    from flaim.weights.sources import resolve

__all__ = [
    "CatalogueError",
    "Checkpoint",
    "CheckpointError",
    "CheckpointInfo",
    "FileMissingError",
    "HubError",
    "Location",
    "Preprocessing",
    "from_pretrained",
    "get_model",
    "list_models",
    "load",
    "model_of",
    "push_to_hub",
    "resolve",
    "rows",
    "save_pretrained",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CatalogueError": "flaim.weights.errors",
        "Checkpoint": "flaim.pretrained",
        "CheckpointError": "flaim.weights.errors",
        "CheckpointInfo": "flaim.weights.info",
        "FileMissingError": "flaim.weights.errors",
        "HubError": "flaim.weights.errors",
        "Location": "flaim.weights.info",
        "Preprocessing": "flaim.weights.info",
        "from_pretrained": "flaim.pretrained",
        "get_model": "flaim.pretrained",
        "list_models": "flaim.weights.catalogue",
        "load": "flaim.pretrained",
        "model_of": "flaim.weights.assign",
        "push_to_hub": "flaim.weights.saving.share",
        "resolve": "flaim.weights.sources",
        "rows": "flaim.weights.catalogue",
        "save_pretrained": "flaim.weights.saving.native",
    },
)
