"""`Model`: a model function with its configuration; immutable, hashable, free of any framework."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim._eager import Mode, run
from flaim._fused_norm import FusedNorm, fused_batch_norm, fusible_norms
from flaim._values import as_value


class Feature(NamedTuple):
    """A stage's feature map: its name as an intermediate, its channels, and its stride in pixels of the image.

    For tokens the stride is the patch's side.
    """

    name: str
    channels: int
    reduction: int


@dataclass(frozen=True)
class Model:
    """A model without its variables.

    Attributes:
        name: Architecture name.
        fn: The model function, a kernel `fn(scope, x, *, n_classes, **config)`.
        config: The function's other options, as sorted (name, value) pairs.
        classifier: Path of the last linear layer, `"fc"` or `"head/fc"`.
        input_size: Height and width of the images that the variables are made for.
        n_classes: Positive: logits; -1: the classifier's input; 0: the final feature map or tokens.
        in_channels: Channels of the images.
        dtype: Compute dtype (a name, `"bfloat16"`); None follows the images.
        remat, scan: As in `flaim_core.apply`.
        fused: Batch norms are folded into the layers before them; see `flaim.models.fuse`.
    """

    name: str
    fn: Callable
    config: tuple[tuple[str, Any], ...] = ()
    classifier: str = "head"
    input_size: tuple[int, int] = (224, 224)
    n_classes: int = 1000
    in_channels: int = 3
    dtype: str | None = None
    remat: bool = False
    scan: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        for field in ("fn", "config"):
            object.__setattr__(self, field, as_value(getattr(self, field)))

    def replace(self, **fields) -> "Model":
        """The same model with other fields."""
        return replace(self, **fields)

    def _call(self, scope: Any, x: Array) -> Any:
        if self.fused:
            if scope.training:
                raise ValueError(f"{self.name} is fused for inference: train it as it was before `fuse`")
            scope = scope.replacing(dict.fromkeys(self.fusible_norms(), fused_batch_norm))
        try:
            return self.fn(scope, x, n_classes=self.n_classes, **dict(self.config))
        except core.ops.SizeError as error:
            raise core.ops.SizeError(
                f"{self.name}: images of {x.shape[1]}x{x.shape[2]} are too small: {error}"
            ) from error

    def image(self, batch: int = 1) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a batch of the images that the model is made for."""
        return jax.ShapeDtypeStruct((batch, *self.input_size, self.in_channels), jnp.float32)

    def spec(self) -> dict:
        """The model's leaves: `{"params": ..., "batch_stats": ...}`, a tree of `flaim_core.Leaf`."""
        return _spec(self)

    def init(self, key: PRNGKeyArray) -> dict:
        """Random variables. A leaf's value depends on `key` and its path alone; no forward pass runs."""
        return core.init_leaves(self.spec(), key)

    def apply(
        self,
        variables: Mapping,
        x: Array | np.ndarray,
        *,
        training: bool = False,
        use_running_average: bool | None = None,
        rng: PRNGKeyArray | None = None,
        capture: str | None = None,
        axis_name: Any = None,
        modules: Mapping[str, Callable] | None = None,
    ) -> core.Output:
        """Run the model on images `(batch, height, width, channels)`; `flaim_core.apply` has the options.

        Outside of `jax.jit`, a call compiles the model: once for each model, mode and shape.

        Raises:
            ValueError: The images' rank, dtype or number of channels is wrong, they are too small, or a training batch
                has no images.
            LeafError: The variables do not fit the model or the images' size; all leaves are listed.
        """
        expected = f"(batch, {self.input_size[0]}, {self.input_size[1]}, {self.in_channels})"
        if x.ndim != 4:
            raise ValueError(f"{self.name} takes images of shape {expected}, got an array of shape {x.shape}")
        if x.shape[-1] != self.in_channels:
            hint = " (channels come last)" if x.shape[1] == self.in_channels else ""
            raise ValueError(f"{self.name} takes images of {self.in_channels} channels, got shape {x.shape}{hint}")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{self.name} takes normalised floating-point images, got {x.dtype}")

        if isinstance(x.shape[0], int) and x.shape[0] == 0:
            return self._nothing(variables, x, training=training, rng=rng, capture=capture, modules=modules)
        try:
            frozen = not training if use_running_average is None else use_running_average
            return run(self, variables, x, rng, Mode(training, frozen, capture, axis_name), modules)
        except (ValueError, jax.errors.InconclusiveDimensionOperation) as error:
            if not all(isinstance(n, int) for n in x.shape[1:3]):
                raise ValueError(
                    f"{self.name} does not take images of {x.shape[1]}x{x.shape[2]}; their number may be symbolic, and "
                    f"where sizes are compared, constraints on height and width may help.\n{error}"
                ) from error
            fits = x.shape[1:3] == self.input_size
            if fits or isinstance(error, core.ops.SizeError) or not isinstance(error, ValueError):
                raise
            raise type(error)(
                f"{self.name} is made for images of {self.input_size[0]}x{self.input_size[1]}, got "
                f"{x.shape[1]}x{x.shape[2]}; create it with input_size={x.shape[1:3]} for these.\n{error}"
            ) from error

    def _nothing(self, variables: Mapping, x: Array | np.ndarray, *, training: bool, **options: Any) -> core.Output:
        """The output for an empty batch: one image's output, sliced to length 0. Under jit nothing is computed."""
        if training:
            raise ValueError(f"{self.name}: a batch of no images has no statistics to train with")
        one = self.apply(variables, jnp.zeros((1, *x.shape[1:]), x.dtype), **options)
        value, intermediates = jax.tree.map(lambda y: y[:0], (one.value, one.intermediates))
        return core.Output(value, one.batch_stats, intermediates)

    def fusible_norms(self) -> dict[str, FusedNorm]:
        """The batch norms that `flaim.models.fuse` folds into the layers before them, by their paths."""
        return _foldable_norms(self.replace(fused=False))

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """Name, width and reduction of each stage (of each block, in isotropic models)."""
        model = self.replace(n_classes=0)
        _, features = core.shapes(model._call, self.image(), capture="*")
        return tuple(
            Feature(name, x.shape[-1], _reduction(self.input_size, x.shape[1:-1])) for name, x in features.items()
        )


def _reduction(size: tuple[int, int], shape: tuple[int, ...]) -> int:
    """The stride of a map `(height, width)`, or of tokens `(number,)`, of an image of `size`.

    Without padding a map loses some of its border: its stride is then the nearest power of two. Tokens are patches and
    perhaps a few prefix tokens, so their stride is the smallest patch that does not give more patches than tokens.
    """
    if len(shape) == 2 and any(side % part for side, part in zip(size, shape)):
        return 2 ** round(math.log2(math.prod(size) / math.prod(shape)) / 2)
    (height, width), positions = size, math.prod(shape)
    counts = {side: (height // side) * (width // side) for side in range(1, max(size) + 1)}
    return max((side for side in counts if counts[side] <= positions), key=lambda side: (counts[side], side))


@functools.lru_cache(maxsize=64)
def _foldable_norms(model: Model) -> dict[str, FusedNorm]:
    return fusible_norms(model._call, model.image())


@functools.lru_cache(maxsize=64)
def _spec(model: Model) -> dict:
    return core.spec(model._call, model.image())
