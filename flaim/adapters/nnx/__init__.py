"""flaim's models as Flax NNX modules, whose leaves are attributes: `model.layer1[0].conv1.kernel`."""

from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra, with_classes_of

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise missing_extra("flax", "nnx") from error

from flaim.adapters.nnx import layers
from flaim.adapters.nnx._module import ImageModel, to_variables, wrap
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
    rngs: nnx.Rngs | None = None,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[ImageModel, dict[str, tuple[float, ...]]]:
    """An NNX module and the normalisation of its images; takes what `flaim.weights.get_model` takes.

        model, norm_stats = get_model("resnet50", rngs=nnx.Rngs(0))
        logits = model(x)
        model.train()
        model.fc = nnx.Linear(2048, 10, rngs=nnx.Rngs(1))

    The module is in evaluation mode. `rngs` has the "dropout" stream that training draws from, where the model drops.
    """
    from flaim.pretrained import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return wrap(model, variables, rngs=rngs), norm_stats


def from_pretrained(
    source: str | PathLike,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    *,
    prng: PRNGKeyArray | int | None = None,
    rngs: nnx.Rngs | None = None,
    dtype: Any = None,
    **overrides: Any,
) -> tuple[ImageModel, dict[str, tuple[float, ...]]]:
    """What `get_model` returns, of a saved checkpoint: a path, or `"organisation/name"` on the Hub."""
    from flaim.pretrained import source_of

    return get_model(source_of(source), True, n_classes, input_size, prng=prng, rngs=rngs, dtype=dtype, **overrides)


def save_pretrained(path: str | PathLike, model: ImageModel, *, merge_lora: bool = False, **details: Any) -> None:
    """Save a module as a folder that every framework's `from_pretrained` reads.

    `merge_lora` as in `to_variables`. `details` are those of `flaim.weights.save_pretrained`: `preprocessing`
    (`norm_stats` will do), `labels`, `license`.
    """
    from flaim.weights.saving.native import save_pretrained as save

    save(path, *_parts(model, merge_lora), **details)


def push_to_hub(repo_id: str, model: ImageModel, *, merge_lora: bool = False, **details: Any) -> str:
    """Put a module on the Hub with a model card; the commit's address.

    `merge_lora` as in `to_variables`. `details` are those of `flaim.weights.push_to_hub`.
    """
    from flaim.weights.saving.share import push_to_hub as push

    return push(repo_id, *_parts(model, merge_lora), **details)


def _parts(model: ImageModel, merge_lora: bool) -> tuple[Model, dict]:
    """The framework-free model and its variables."""
    tree = to_variables(model, merge_lora=merge_lora)
    return with_classes_of(model._target, tree), tree
