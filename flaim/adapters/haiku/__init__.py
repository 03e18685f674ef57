"""flaim's models as transformed Haiku functions, their variables as Haiku's two-level dictionaries."""

from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra

try:
    import haiku as hk
except ModuleNotFoundError as error:
    raise missing_extra("dm-haiku", "haiku") from error

from flaim.adapters.haiku import layers
from flaim.adapters.haiku._module import ImageModel, to_variables, wrap

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
) -> tuple[hk.TransformedWithState, dict, dict, dict[str, tuple[float, ...]]]:
    """A transformed function, its parameters and state, and the normalisation of its images.

    Takes what `flaim.weights.get_model` takes.

        transformed, params, state, norm_stats = get_model("resnet50")
        logits, state = transformed.apply(params, state, rng, x, is_training=False)
    """
    from flaim.weights import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return *wrap(model, variables), norm_stats
