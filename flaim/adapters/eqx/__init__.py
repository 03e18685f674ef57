"""flaim's models as Equinox modules, whose leaves are attributes: `model.layer1[0].conv1.kernel`."""

from collections.abc import Hashable
from os import PathLike
from typing import Any

from jaxtyping import PRNGKeyArray

from flaim.adapters._common import missing_extra

try:
    import equinox
except ModuleNotFoundError as error:
    raise missing_extra("equinox", "eqx") from error

from flaim.adapters.eqx import layers
from flaim.adapters.eqx._module import ImageModel, to_variables, wrap

__all__ = ["ImageModel", "get_model", "layers", "to_variables", "wrap"]


def get_model(
    model_name: str | PathLike,
    pretrained: str | int | bool | PathLike = True,
    n_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    jit: bool = True,
    prng: PRNGKeyArray | int | None = None,
    *,
    axis_name: Hashable = "batch",
    dtype: Any = None,
    **overrides: Any,
) -> tuple[ImageModel, equinox.nn.State, dict[str, tuple[float, ...]]]:
    """An Equinox module, its state and the normalisation of its images; takes what `flaim.weights.get_model` takes.

        model, state, norm_stats = get_model("resnet50")
        logits, state = model(images, state)
        logits, state = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(images, state)
        model = eqx.nn.inference_mode(model, False)

    The module is in inference mode. `axis_name` is that of the `jax.vmap` over single images in training, over which
    batch statistics are taken.
    """
    from flaim.weights import get_model as load

    model, variables, norm_stats = load(
        model_name, pretrained, n_classes, input_size, jit, prng, dtype=dtype, **overrides
    )
    return *wrap(model, variables, axis_name=axis_name), norm_stats
