"""flaim's models as Flax Linen modules, their variables as Linen's collections."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra, with_classes_of

try:
    import flax.linen  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("flax", "linen") from error

from flaim.adapters.linen import layers
from flaim.adapters.linen._module import ImageModel, to_variables, wrap
from flaim.model import Model

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


def get_model(
    model_name: str | PathLike,
    pretrained: str | int | bool | PathLike = True,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    jit: bool = True,
    prng: PRNGKeyArray | int | None = None,
    *,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[ImageModel, dict, dict[str, tuple[float, ...]]]:
    """A Linen module, its variables and the normalisation of its images; takes what `flaim.weights.get_model` takes.

    model, variables, norm_stats = get_model("resnet50")
    logits = model.apply(variables, x)
    logits, updates = model.apply(variables, x, training=True, mutable=["batch_stats"], rngs={"dropout": key})
    logits, sown = model.apply(variables, x, mutable=["intermediates"])
    """
    from flaim.pretrained import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return *wrap(model, variables), norm_stats


def from_pretrained(
    source: str | PathLike,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    *,
    prng: PRNGKeyArray | int | None = None,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[ImageModel, dict, dict[str, tuple[float, ...]]]:
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub."""
    from flaim.pretrained import source_of

    return get_model(source_of(source), True, n_classes, input_size, prng=prng, dtype=dtype, **overrides)


def save_pretrained(path: str | PathLike, model: ImageModel, variables: Mapping, **details: Any) -> None:
    """Save a module with its variables as a folder that every framework's `from_pretrained` reads.

    `details` are those of `flaim.weights.save_pretrained`: `preprocessing` (`norm_stats` will do), `labels`, `license`.
    """
    from flaim.weights.saving.native import save_pretrained as save

    save(path, *_parts(model, variables), **details)


def push_to_hub(repo_id: str, model: ImageModel, variables: Mapping, **details: Any) -> str:
    """Put a module with its variables on the Hub with a model card; the commit's address.

    `details` are those of `flaim.weights.push_to_hub`.
    """
    from flaim.weights.saving.share import push_to_hub as push

    return push(repo_id, *_parts(model, variables), **details)


def _parts(model: ImageModel, variables: Mapping) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(variables)
    return with_classes_of(model.model, tree), tree
