"""Keras 3 on JAX as the reference: its models, every weight randomised, their files and their outputs."""

import importlib
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import h5py
import jax
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import naming


def build(make: Callable[..., keras.Model], *, size: int, classes: int = 7, seed: int = 0) -> keras.Model:
    """A model of `keras.applications` for images of side `size`, every weight randomised, that puts out logits."""
    keras.backend.clear_session()  # so that the names that Keras makes up start anew
    zeros = {name: lambda shape, *_, **__: np.zeros(shape, np.float32) for name in ("uniform", "truncated_normal")}
    with mock.patch.multiple(keras.src.backend.random, **zeros):  # each drawing would compile, to be overwritten
        model = make(weights=None, input_shape=(size, size, 3), classes=classes, classifier_activation=None)
    return randomise(model, seed)


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Randomise every weight so that each counts and activations stay of order one."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name
        if weight.dtype == "int32":  # how many batches a normalisation layer has seen
            continue
        if name.endswith("kernel"):
            fan_in = np.prod(shape[:2]) if "depthwise" in weight.path else np.prod(shape[:-1])
            value = rng.standard_normal(shape) / np.sqrt(fan_in)
        elif name in ("moving_variance", "variance"):
            value = 0.5 + rng.random(shape)
        else:
            value = (name == "gamma") + 0.2 * rng.standard_normal(shape)
        weight.assign(value.astype(np.float32))
    return model


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight `layer/weight` as `tools/make_resnet_rs_reference.py` draws it."""
    rng, role = np.random.default_rng(zlib.crc32(name.encode())), name.rpartition("/")[2]
    if role == "kernel":
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))
    if role == "moving_variance":
        return np.float32(0.5) + rng.random(shape, np.float32)
    return np.float32(role == "gamma") + np.float32(0.2) * rng.standard_normal(shape, np.float32)


def save(model: keras.Model, folder: Path) -> dict[str, Path]:
    """The model in each kind of file that Keras has or had, by kind."""
    files = {kind: folder / f"model{kind}" for kind in (".weights.h5", ".keras", ".h5")}
    model.save_weights(files[".weights.h5"])
    model.save(files[".keras"])
    with h5py.File(files[".h5"], "w") as file:  # weights alone, as on Keras' servers
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return files


def pixels(size: int, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Random images `(batch, size, size, 3)` of integers from 0 to 255, as floats."""
    return np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3)).astype(np.float32)


def run(model: keras.Model, module: str, images: np.ndarray) -> np.ndarray:
    """The model's output for pixels in [0, 255], after its own `preprocess_input`."""
    preprocess = importlib.import_module(f"keras.applications.{module}").preprocess_input
    return quickly(partial(model, training=False), preprocess(images.copy()))


def quickly(function: Callable, *args) -> np.ndarray:
    """The function's value, compiled without what takes longer than it saves in a single run."""
    return np.asarray(jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})(*args))


def structure(model: keras.Model) -> list[str]:
    """A line for each layer that has weights: its name, class, and the shapes of its weights as flaim lays them out."""
    # Models in the model come after its own layers, as they do in its files.
    layers = [layer for layer in model.layers if not isinstance(layer, keras.Sequential)]
    layers += [inner for layer in model.layers if isinstance(layer, keras.Sequential) for inner in layer.layers]
    return [
        _line(layer, layer.name.removeprefix(f"{model.name}_"))
        for layer in layers
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    ]


def comparable(kind: str, role: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a weight has in Keras, where flaim has a dense layer as a convolution or the other way around."""
    if (kind, role) == ("dense", "kernel"):
        return math.prod(shape[:-1]), shape[-1]
    return (1, 1, *shape) if (kind, role) == ("conv2d", "kernel") and len(shape) == 2 else shape


def _line(layer: keras.layers.Layer, name: str) -> str:
    kind = naming.to_snake_case(type(layer).__name__)
    shapes = {}
    for weight in layer.weights:
        shape = tuple(weight.shape)
        role = "depthwise_kernel" if kind == "depthwise_conv2d" and weight.name == "kernel" else weight.name
        if role == "depthwise_kernel":
            shape = (*shape[:2], 1, shape[2] * shape[3])
        shapes["gamma" if kind == "layer_scale" else role] = shape
    if kind == "batch_normalization":  # without a scale it has one of ones
        shapes.setdefault("gamma", shapes["beta"])
    return f"{name} {kind} " + " ".join(f"{role}{shapes[role]}" for role in sorted(shapes))
