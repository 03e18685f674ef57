"""flaim's models as transformed Haiku functions, their variables as Haiku's two-level dictionaries."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from flaim import pretrained
from flaim.adapters._common import missing_extra, with_classes_of
from flaim.adapters._loading import loading

try:
    import haiku  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("dm-haiku", "haiku") from error

from flaim.adapters.haiku import layers
from flaim.adapters.haiku._module import ImageModel, TransformedModel, to_variables, wrap
from flaim.model import Model
from flaim.weights.saving import native, share

__all__ = [
    "ImageModel",
    "TransformedModel",
    "from_pretrained",
    "get_model",
    "layers",
    "push_to_hub",
    "save_pretrained",
    "to_variables",
    "wrap",
]


get_model = loading(
    pretrained.get_model,
    wrap,
    """A transformed function, its parameters and state, and the normalisation of its images.

Takes what `flaim.weights.get_model` takes.

    transformed, params, state, norm_stats = get_model("resnet50")
    logits, state = transformed.apply(params, state, rng, x, is_training=False)
""",
)

from_pretrained = loading(
    pretrained.from_pretrained,
    wrap,
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub.""",
)


def save_pretrained(
    path: str | PathLike, model: TransformedModel, params: Mapping, state: Mapping, **details: Any
) -> None:
    """Save a model with its parameters and state as a folder that every framework's `from_pretrained` reads.

    `details` are options of `flaim.weights.save_pretrained`: `preprocessing` (or `norm_stats`), `labels`, `license`.
    """
    native.save_pretrained(path, *_parts(model, params, state), **details)


def push_to_hub(repo_id: str, model: TransformedModel, params: Mapping, state: Mapping, **details: Any) -> str:
    """Upload a model with its parameters and state to the Hub with a model card, and return the commit's address.

    `details` are options of `flaim.weights.push_to_hub`.
    """
    return share.push_to_hub(repo_id, *_parts(model, params, state), **details)


def _parts(model: TransformedModel, params: Mapping, state: Mapping) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(params, state)
    return with_classes_of(model.model, tree), tree
