"""flaim's models as Flax Linen modules, their variables as Linen's collections."""

from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra

try:
    import flax.linen  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra("flax", "linen") from error

from flaim.adapters.linen import layers
from flaim.adapters.linen._module import ImageModel, to_variables, wrap

__all__ = ["ImageModel", "get_model", "layers", "to_variables", "wrap"]


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
    from flaim.weights import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return *wrap(model, variables), norm_stats
