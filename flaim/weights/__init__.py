"""Where checkpoints come from: the catalogue, the Hub, local files; their conversion to flaim's variables."""

from flaim.weights.catalogue import list_models, rows
from flaim.weights.config import Config
from flaim.weights.errors import CatalogueError, CheckpointError, FileMissingError, HubError
from flaim.weights.native import save_pretrained
from flaim.weights.pretrained import Checkpoint, get_model, load, model_of
from flaim.weights.sharing import from_pretrained, push_to_hub
from flaim.weights.sources import resolve

__all__ = [
    "CatalogueError",
    "Checkpoint",
    "CheckpointError",
    "Config",
    "FileMissingError",
    "HubError",
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
