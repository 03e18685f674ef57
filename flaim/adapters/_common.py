"""What the adapters share: kernels as layers, and errors in a framework's own terms."""

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

import flaim_core as core
from flaim.model import Model
from flaim_core.lowering import lax_is_patched
from flaim_core.run import intercept_kernels

# Words of kernel names as class names write them; other words are capitalised.
_WORDS = {"bam": "BAM", "cbam": "CBAM", "glu": "GLU", "mbconv": "MBConv", "mlp": "MLP", "rms": "RMS"}


def missing_extra(framework: str, extra: str) -> ImportError:
    """The error that says how to install a framework."""
    return ImportError(f'flaim.adapters.{extra} needs {framework}: pip install "flaim[{extra}]"', name=framework)


@contextlib.contextmanager
def asking_for_key(how: str) -> Iterator[None]:
    """Context in which the error for a missing random key says how this framework takes one."""
    try:
        yield
    except core.MissingKeyError as error:
        raise core.MissingKeyError(str(error).replace("rng=jax.random.key(...)", how)) from None


def inside_nodes(inside: Callable[[tuple[str, ...], Callable], Any]) -> contextlib.AbstractContextManager:
    """A context in which `inside(path, run)` runs each kernel in its node's module, if products are intercepted.

    Quantisation libraries look up which parameter of the current module a product uses.
    """
    return intercept_kernels(inside) if lax_is_patched() else contextlib.nullcontext()


@dataclass(frozen=True)
class Layer:
    """A kernel with its options and the shapes of its inputs; the counterpart of `Model` for a single kernel."""

    fn: Callable
    options: tuple[tuple[str, Any], ...] = ()
    x: jax.ShapeDtypeStruct | None = None
    arrays: tuple[tuple[str, jax.ShapeDtypeStruct], ...] = ()

    def _call(self, scope: Any, x: Any, arrays: Mapping) -> Any:
        return self.fn(scope, x, **{**dict(self.options), **arrays})

    def spec(self) -> dict:
        """The kernel's leaves, as `Model.spec`."""
        return core.spec(self._call, self.x, dict(self.arrays))

    def init(self, key: PRNGKeyArray) -> dict:
        """Random variables, as `Model.init`."""
        return core.init_leaves(self.spec(), key)

    def apply(
        self,
        variables: Mapping,
        x: Array,
        *,
        training: bool = False,
        use_running_average: bool | None = None,
        rng: PRNGKeyArray | None = None,
        capture: str | None = None,
        axis_name: Any = None,
        modules: Mapping[str, Callable] | None = None,
        **arrays: Any,
    ) -> core.Output:
        """Run the kernel, as `Model.apply`; `arrays` are its other inputs, or options for this call only."""
        return core.apply(
            self._call,
            variables,
            x,
            arrays,
            training=training,
            use_running_average=use_running_average,
            rng=rng,
            capture=capture,
            axis_name=axis_name,
            modules=modules,
        )

    def draws(self) -> bool:
        """Whether the kernel draws random numbers in training."""
        try:
            zero_output(self, self.x, training=True, **dict(self.arrays))
        except core.MissingKeyError:
            return True
        return False


def with_classes_of(target: Model | Layer, variables: Mapping) -> Model:
    """The model with `n_classes` set from the classifier in the variables, which may have been replaced."""
    if not isinstance(target, Model):
        raise TypeError(f"only image models are saved, not layers such as {target.fn.__name__}")
    kernel = core.flatten(variables["params"]).get(f"{target.classifier}/kernel")
    return target if kernel is None or target.n_classes <= 0 else target.replace(n_classes=kernel.shape[-1])


def fitted(target: Model | Layer, x: Any, arrays: Mapping) -> Any:
    """`target`, made for inputs of the shapes of `x` and `arrays`."""
    if isinstance(target, Layer):
        return replace(
            target, x=core.shape_struct(x), arrays=tuple((name, core.shape_struct(a)) for name, a in arrays.items())
        )
    return target.replace(input_size=tuple(x.shape[1:3]), in_channels=x.shape[-1])


def zero_output(target: Model | Layer, x: Any, **inputs: Any) -> Any:
    """Zeros with the shapes of the output of `target`, which is fitted to `x`; nothing is computed."""
    leaves = jax.tree.map(core.shape_struct, target.spec())
    traced = {name: value for name, value in inputs.items() if hasattr(value, "shape")}
    fixed = {name: value for name, value in inputs.items() if name not in traced}
    shapes = jax.eval_shape(
        lambda v, x, a: target.apply(v, x, **a, **fixed).value, leaves, core.shape_struct(x), traced
    )
    return jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), shapes)


def parameters(kernel: Callable) -> dict[str, inspect.Parameter]:
    """A kernel's parameters after its scope and first input, without inputs that are always arrays."""
    _, _, *rest = inspect.signature(kernel).parameters.values()
    return {p.name: p for p in rest if not hasattr(p.annotation, "array_type")}


def show_options(cls: type, kernel: Callable, *, first: list, last: list, arrays: bool) -> type:
    """`cls`, a layer, with a signature that lists the kernel's options between the parameters `first` and `last`.

    With `arrays`, the other inputs are listed too.
    """
    _, _, *rest = inspect.signature(kernel).parameters.values()
    options = [p for p in rest if p.name in parameters(kernel)]
    if arrays:
        options += [p.replace(kind=p.KEYWORD_ONLY) for p in rest if p not in options]
    shown = sorted([*first, *options, *last], key=lambda p: p.kind)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    init: Any = cls.__init__  # type: ignore[misc]
    init.__signature__ = inspect.Signature([itself, *shown])
    if not hasattr(type(cls), "__signature__"):  # Equinox's classes take theirs from `__init__`
        cls.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return cls


def parameter(name: str, annotation: Any, *default: Any, keyword: bool = True) -> inspect.Parameter:
    """A parameter of a signature, with a default or without."""
    kind = inspect.Parameter.KEYWORD_ONLY if keyword else inspect.Parameter.POSITIONAL_OR_KEYWORD
    found = inspect.Parameter(name, kind, annotation=annotation)
    return found.replace(default=default[0]) if default else found


def check_axes(kernel: Callable, name: str, shape: tuple[int, ...], *, samples: bool = False) -> None:
    """Raise ValueError if an example of the kernel's first input doesn't have the axes that the kernel names.

    With `samples`, the example has no batch axis.
    """
    _, x, *_ = inspect.signature(kernel).parameters.values()
    axes = getattr(x.annotation, "dim_str", "...").split()
    open_ended = any(axis[0] in "*." for axis in axes)
    if samples and not open_ended:
        axes = axes[1:]
    fixed = [axis for axis in axes if axis[0] not in "*."]
    if len(shape) < len(fixed) or (len(shape) > len(fixed) and not open_ended):
        raise ValueError(
            f"{name} takes an example of its first input, an array or a shape ({', '.join(axes)}), got shape {shape}"
        )


def split_options(kernel: Callable, args: tuple, options: Mapping) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that are fixed when a layer is made, and arrays, which come with each call."""
    given = {**dict(zip(parameters(kernel), args)), **options}
    arrays = {name: value for name, value in given.items() if hasattr(value, "shape")}
    return {name: value for name, value in given.items() if name not in arrays}, arrays


def make_layer(kernel: Callable, options: Mapping) -> Layer:
    """A kernel with its options."""
    return Layer(kernel, tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in options.items()))


def shape_of(x: Any, *, batch: bool = False) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, a shape or a width; `batch` adds a batch axis in front."""
    if isinstance(x, int):
        x = (x,)
    shape, dtype = (tuple(x), jnp.float32) if isinstance(x, tuple | list) else (x.shape, x.dtype)
    return jax.ShapeDtypeStruct((1, *shape) if batch else shape, dtype)


def class_name(kernel_name: str) -> str:
    """`"squeeze_excite"` as `"SqueezeExcite"`."""
    return "".join(_WORDS.get(word, word.capitalize()) for word in kernel_name.split("_"))


@functools.cache
def kernels() -> dict[str, Callable]:
    """Every kernel of `flaim_core`, by the name of its layer."""
    names = core.layers.__all__
    return {class_name(name): getattr(core, name) for name in names if hasattr(getattr(core, name), "is_kernel")}


def layer_attributes(module: str, make: Callable[[str, Callable], type]) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` of a module with one class per kernel, which is made on first use."""

    @functools.cache
    def attribute(name: str) -> type:
        if name not in kernels():
            near = difflib.get_close_matches(name, kernels(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
        layer = make(name, kernels()[name])
        layer.__module__ = module
        return layer

    return attribute, lambda: sorted(kernels())
