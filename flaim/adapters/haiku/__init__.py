"""flaim's models as transformed Haiku functions, their variables as Haiku's two-level dictionaries."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra, with_classes_of

try:
    import haiku  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("dm-haiku", "haiku") from error

from flaim.adapters.haiku import layers
from flaim.adapters.haiku._module import ImageModel, TransformedModel, to_variables, wrap
from flaim.model import Model

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
) -> tuple[TransformedModel, dict, dict, dict[str, tuple[float, ...]]]:
    """A transformed function, its parameters and state, and the normalisation of its images.

    Takes what `flaim.weights.get_model` takes.

        transformed, params, state, norm_stats = get_model("resnet50")
        logits, state = transformed.apply(params, state, rng, x, is_training=False)
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
) -> tuple[TransformedModel, dict, dict, dict[str, tuple[float, ...]]]:
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub."""
    from flaim.pretrained import source_of

    return get_model(source_of(source), True, n_classes, input_size, prng=prng, dtype=dtype, **overrides)


def save_pretrained(
    path: str | PathLike, model: TransformedModel, params: Mapping, state: Mapping, **details: Any
) -> None:
    """Save a model with its parameters and state as a folder that every framework's `from_pretrained` reads.

    `details` are those of `flaim.weights.save_pretrained`: `preprocessing` (`norm_stats` will do), `labels`, `license`.
    """
    from flaim.weights.saving.native import save_pretrained as save

    save(path, *_parts(model, params, state), **details)


def push_to_hub(repo_id: str, model: TransformedModel, params: Mapping, state: Mapping, **details: Any) -> str:
    """Put a model with its parameters and state on the Hub with a model card; the commit's address.

    `details` are those of `flaim.weights.push_to_hub`.
    """
    from flaim.weights.saving.share import push_to_hub as push

    return push(repo_id, *_parts(model, params, state), **details)


def _parts(model: TransformedModel, params: Mapping, state: Mapping) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(params, state)
    return with_classes_of(model.model, tree), tree
