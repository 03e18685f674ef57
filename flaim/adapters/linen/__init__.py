"""flaim's models as Flax Linen modules, their variables as Linen's collections."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from flaim import pretrained
from flaim.adapters._common import missing_extra, with_classes_of
from flaim.adapters._loading import loading

try:
    import flax.linen  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("flax", "linen") from error

from flaim.adapters.linen import layers
from flaim.adapters.linen._module import ImageModel, to_variables, wrap
from flaim.model import Model
from flaim.weights.saving import native, share

__all__ = [
    "ImageModel",
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
    """A Linen module, its variables and the normalisation of its images; takes what `flaim.weights.get_model` takes.

model, variables, norm_stats = get_model("resnet50")
logits = model.apply(variables, x)
logits, updates = model.apply(variables, x, training=True, mutable=["batch_stats"], rngs={"dropout": key})
logits, sown = model.apply(variables, x, mutable=["intermediates"])
""",
)

from_pretrained = loading(
    pretrained.from_pretrained,
    wrap,
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub.""",
)


def save_pretrained(path: str | PathLike, model: ImageModel, variables: Mapping, **details: Any) -> None:
    """Save a module with its variables as a folder that every framework's `from_pretrained` reads.

    `details` are options of `flaim.weights.save_pretrained`: `preprocessing` (or `norm_stats`), `labels`, `license`.
    """
    native.save_pretrained(path, *_parts(model, variables), **details)


def push_to_hub(repo_id: str, model: ImageModel, variables: Mapping, **details: Any) -> str:
    """Upload a module with its variables to the Hub with a model card, and return the commit's address.

    `details` are options of `flaim.weights.push_to_hub`.
    """
    return share.push_to_hub(repo_id, *_parts(model, variables), **details)


def _parts(model: ImageModel, variables: Mapping) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(variables)
    return with_classes_of(model.model, tree), tree
