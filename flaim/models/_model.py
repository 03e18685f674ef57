"""`Model`: a model function with its configuration; immutable, hashable, free of any framework."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim.models._apply import Mode, run
from flaim.models._fuse import folds, shift
from flaim.models._values import as_value


class Feature(NamedTuple):
    """One stage's feature map: its name as an intermediate, its width, and by how much it is smaller than the image."""

    name: str
    channels: int
    reduction: int


@dataclass(frozen=True)
class Family:
    """Models that share one forward graph: the model function, the path of the last linear layer, the variants.

    A variant is a dict of keyword arguments of `fn`. Its `input_size` and `n_classes`, where it has them, are the
    model's own (otherwise 224 and 1000) and do not reach `fn`.
    """

    fn: Callable
    classifier: str
    variants: Mapping[str, Mapping[str, Any]]


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
            scope = scope.replacing(dict.fromkeys(folds(self.replace(fused=False)), shift))
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

        A call on arrays, outside of `jax.jit`, compiles itself: once for each model, mode and shape.

        Raises:
            ValueError: The images' rank, dtype or number of channels is wrong, or they are too small; no image is
                there to train with.
            LeafError: The variables do not fit the model, or the model the images' size; all leaves are listed.
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
        """What comes of a batch of no images: that of one image, cut off. Nothing of it is computed under jit."""
        if training:
            raise ValueError(f"{self.name}: a batch of no images has no statistics to train with")
        one = self.apply(variables, jnp.zeros((1, *x.shape[1:]), x.dtype), **options)
        value, intermediates = jax.tree.map(lambda y: y[:0], (one.value, one.intermediates))
        return core.Output(value, one.batch_stats, intermediates)

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """Name, width and reduction of each stage (of each block, in isotropic models)."""
        model = self.replace(n_classes=0)
        _, features = core.shapes(model._call, self.image(), capture="*")
        return tuple(
            Feature(name, x.shape[-1], _reduction(self.input_size, x.shape[1:-1])) for name, x in features.items()
        )


def _reduction(size: tuple[int, int], shape: tuple[int, ...]) -> int:
    """By how much a map, or as many tokens, of this shape is smaller than the image.

    For tokens it is the side of the squares that cut the image into so many, of which a few may be prefix tokens. Maps
    of networks without padding have lost some of their border: the power of two is meant that comes nearest.
    """
    if len(shape) == 2 and any(side % part for side, part in zip(size, shape)):
        return 2 ** round(math.log2(math.prod(size) / math.prod(shape)) / 2)
    (height, width), positions = size, math.prod(shape)
    counts = {side: (height // side) * (width // side) for side in range(1, max(size) + 1)}
    return max((side for side in counts if counts[side] <= positions), key=lambda side: (counts[side], side))


@functools.lru_cache(maxsize=64)
def _spec(model: Model) -> dict:
    return core.spec(model._call, model.image())


def build(family: Family, name: str, n_classes=None, input_size=None, in_channels=3, **overrides) -> Model:
    """The family's variant `name`, as `flaim.models.create` documents it."""
    config = dict(family.variants[name])
    default_size, default_classes = config.pop("input_size", 224), config.pop("n_classes", 1000)
    fields = {k: overrides.pop(k) for k in ("dtype", "remat", "scan", "fused") if k in overrides}
    if fields.get("dtype") is not None:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    options = [p for p in inspect.signature(family.fn).parameters if p not in ("scope", "x", "n_classes")]
    if unknown := sorted(set(overrides) - set(options)):
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(options))}")
    size = default_size if input_size is None else input_size
    return Model(
        name=name,
        fn=family.fn,
        config=tuple(sorted({**config, **overrides}.items())),
        classifier=family.classifier,
        input_size=(size, size) if isinstance(size, int) else tuple(size),
        n_classes=default_classes if n_classes is None else n_classes,
        in_channels=in_channels,
        **fields,
    )
