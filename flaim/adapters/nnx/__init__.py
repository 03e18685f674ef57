"""flaim's models as Flax NNX modules, whose leaves are attributes: `model.layer1[0].conv1.kernel`."""

from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise missing_extra("flax", "nnx") from error

from flaim.adapters.nnx import layers
from flaim.adapters.nnx._module import ImageModel, to_variables, wrap

__all__ = ["ImageModel", "get_model", "layers", "to_variables", "wrap"]


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
    from flaim.weights import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return wrap(model, variables, rngs=rngs), norm_stats
