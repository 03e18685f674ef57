"""flaim's models as Flax NNX modules, whose leaves are attributes: `model.layer1[0].conv1.kernel`."""

from os import PathLike
from typing import Any

from flaim import pretrained
from flaim.adapters._common import missing_extra, with_classes_of
from flaim.adapters._loading import loading

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise missing_extra("flax", "nnx") from error

from flaim.adapters.nnx import layers
from flaim.adapters.nnx._module import ImageModel, to_variables, wrap
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


def _wrapped(model: Model, variables: dict, *, rngs: nnx.Rngs | None = None) -> tuple[ImageModel]:
    return (wrap(model, variables, rngs=rngs),)


get_model = loading(
    pretrained.get_model,
    _wrapped,
    """An NNX module and the normalisation of its images; takes what `flaim.weights.get_model` takes.

    model, norm_stats = get_model("resnet50", rngs=nnx.Rngs(0))
    logits = model(x)
    model.train()
    model.fc = nnx.Linear(2048, 10, rngs=nnx.Rngs(1))

The module is in evaluation mode. `rngs` has the "dropout" stream that training draws from, where the model drops.
""",
)

from_pretrained = loading(
    pretrained.from_pretrained,
    _wrapped,
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub.""",
)


def save_pretrained(path: str | PathLike, model: ImageModel, *, merge_lora: bool = False, **details: Any) -> None:
    """Save a module as a folder that every framework's `from_pretrained` reads.

    `merge_lora` as in `to_variables`. `details` are options of `flaim.weights.save_pretrained`: `preprocessing` (or
    `norm_stats`), `labels`, `license`.
    """
    native.save_pretrained(path, *_parts(model, merge_lora), **details)


def push_to_hub(repo_id: str, model: ImageModel, *, merge_lora: bool = False, **details: Any) -> str:
    """Upload a module to the Hub with a model card, and return the commit's address.

    `merge_lora` as in `to_variables`. `details` are options of `flaim.weights.push_to_hub`.
    """
    return share.push_to_hub(repo_id, *_parts(model, merge_lora), **details)


def _parts(model: ImageModel, merge_lora: bool) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(model, merge_lora=merge_lora)
    return with_classes_of(model._target, tree), tree
