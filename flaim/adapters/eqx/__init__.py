"""flaim's models as Equinox modules, whose leaves are attributes: `model.layer1[0].conv1.kernel`."""

from os import PathLike
from typing import Any

from flaim import pretrained
from flaim.adapters._common import missing_extra, with_classes_of
from flaim.adapters._loading import loading

try:
    import equinox
except ModuleNotFoundError as error:
    raise missing_extra("equinox", "eqx") from error

from flaim.adapters.eqx import layers
from flaim.adapters.eqx._module import ImageModel, to_variables, wrap
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
    """An Equinox module, its state and the normalisation of its images; takes what `flaim.weights.get_model` takes.

    model, state, norm_stats = get_model("resnet50")
    logits, state = model(images, state)
    logits, state = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(images, state)
    model = eqx.nn.inference_mode(model, False)

The module is in inference mode. `axis_name` is that of the `jax.vmap` over single images in training, over which
batch statistics are taken.
""",
)

from_pretrained = loading(
    pretrained.from_pretrained,
    wrap,
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub.""",
)


def save_pretrained(path: str | PathLike, model: ImageModel, state: equinox.nn.State, **details: Any) -> None:
    """Save a module with its state as a folder that every framework's `from_pretrained` reads.

    `details` are options of `flaim.weights.save_pretrained`: `preprocessing` (or `norm_stats`), `labels`, `license`.
    """
    native.save_pretrained(path, *_parts(model, state), **details)


def push_to_hub(repo_id: str, model: ImageModel, state: equinox.nn.State, **details: Any) -> str:
    """Upload a module with its state to the Hub with a model card, and return the commit's address.

    `details` are options of `flaim.weights.push_to_hub`.
    """
    return share.push_to_hub(repo_id, *_parts(model, state), **details)


def _parts(model: ImageModel, state: equinox.nn.State) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(model, state)
    return with_classes_of(model._target, tree), tree
