"""What is timed: for each contender, a function without arguments that runs one step and waits for its result.

A contender is `library` or `library:mode`. All take random images of the model's own size, and random weights.
"""

import time
from collections.abc import Callable

import numpy as np

Step = Callable[[], object]

FLAIM = ("flaim", "flaim:linen", "flaim:nnx", "flaim:eqx", "flaim:haiku")
TIMM = ("timm:eager", "timm:channels_last", "timm:compile")
KERAS = {
    "resnet50": "ResNet50",
    "convnext_tiny": "ConvNeXtTiny",
    "efficientnet_b0": "EfficientNetB0",
    "mobilenetv2_100": "MobileNetV2",
}
LEARNING_RATE = 1e-3


def make(contender: str, model: str, task: str, batch: int, dtype: str = "float32") -> tuple[Step, dict]:
    """The step to time, and the cost of making it: `load_s`, the seconds to make the model with its weights.

    Args:
        contender: One of `FLAIM`, `TIMM`, or `"keras"`.
        model: timm's architecture name.
        task: `"forward"` or `"train"` (forward, backward, SGD update; cross-entropy).
        batch: Number of images.
        dtype: Compute dtype.
    """
    library, _, mode = contender.partition(":")
    return {"flaim": _flaim, "timm": _timm, "keras": _keras}[library](mode, model, task, batch, dtype)


def _images(batch: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, *size, 3), dtype=np.float32)


def _flaim(mode: str, name: str, task: str, batch: int, dtype: str) -> tuple[Step, dict]:
    import importlib

    import jax
    import jax.numpy as jnp

    from flaim import models

    started = time.perf_counter()
    model = models.create(name, dtype=dtype)
    variables = jax.block_until_ready(model.init(jax.random.key(0)))
    costs = {"load_s": time.perf_counter() - started}
    x = jax.device_put(_images(batch, model.input_size))
    labels = jnp.arange(batch) % model.n_classes

    if task == "forward" and mode:
        adapter = importlib.import_module(f"flaim.adapters.{mode}")
        call = ADAPTER_CALLS[mode](adapter, model, variables)
        return lambda: jax.block_until_ready(call(x)), costs
    if task == "forward":
        forward = jax.jit(lambda variables, x: model.apply(variables, x).value)
        return lambda: jax.block_until_ready(forward(variables, x)), costs
    if mode:
        raise ValueError(f"training is timed for the framework-free model, not for {mode}")

    def loss(params, stats, x, key):
        output = model.apply({"params": params, "batch_stats": stats}, x, training=True, rng=key)
        log_probabilities = jax.nn.log_softmax(output.value.astype(jnp.float32))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean(), output.batch_stats

    def train(params, stats, x, key):
        (_, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params, stats, x, key)
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradients), stats

    compiled = jax.jit(train, donate_argnums=(0, 1))
    state = [variables["params"], variables.get("batch_stats", {})]
    key = jax.random.key(0)

    def step():
        state[:] = jax.block_until_ready(compiled(*state, x, key))

    return step, costs


def _linen_call(adapter, model, variables):
    import jax

    module, variables = adapter.wrap(model, variables)
    apply = jax.jit(module.apply)
    return lambda x: apply(variables, x)


def _nnx_call(adapter, model, variables):
    from flax import nnx

    module = adapter.wrap(model, variables)
    call = nnx.jit(lambda module, x: module(x))
    return lambda x: call(module, x)


def _eqx_call(adapter, model, variables):
    import equinox as eqx

    module, state = adapter.wrap(model, variables)
    call = eqx.filter_jit(lambda module, state, x: module(x, state)[0])
    return lambda x: call(module, state, x)


def _haiku_call(adapter, model, variables):
    import jax

    transformed, params, state = adapter.wrap(model, variables)
    apply = jax.jit(lambda params, state, x: transformed.apply(params, state, None, x)[0])
    return lambda x: apply(params, state, x)


ADAPTER_CALLS = {"linen": _linen_call, "nnx": _nnx_call, "eqx": _eqx_call, "haiku": _haiku_call}


def _timm(mode: str, name: str, task: str, batch: int, dtype: str) -> tuple[Step, dict]:
    import torch

    from tests.oracle import timm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    model = timm.create_model(name, pretrained=False).to(device)
    costs = {"load_s": time.perf_counter() - started}
    size = timm.get_pretrained_cfg(name).input_size[1:]
    x = torch.from_numpy(_images(batch, size).transpose(0, 3, 1, 2).copy()).to(device)
    if mode == "channels_last" or (mode == "compile" and device == "cuda"):
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    autocast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32")
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    run = torch.compile(model) if mode == "compile" else model

    if task == "forward":
        model.eval()

        def step():
            with torch.inference_mode(), autocast:
                run(x)
            synchronise()

        return step, costs

    model.train()
    labels = torch.arange(batch, device=device) % 1000
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = torch.nn.functional.cross_entropy(run(x), labels)
        loss.backward()
        optimizer.step()
        synchronise()

    return step, costs


def _keras(mode: str, name: str, task: str, batch: int, dtype: str) -> tuple[Step, dict]:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    if task != "forward":
        raise ValueError("Keras is timed forward only")
    started = time.perf_counter()
    model = getattr(keras.applications, KERAS[name])(weights=None)
    costs = {"load_s": time.perf_counter() - started}
    x = jax.device_put(_images(batch, (224, 224)))
    trainable = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    forward = jax.jit(lambda t, o, x: model.stateless_call(t, o, x, training=False)[0])
    return lambda: jax.block_until_ready(forward(trainable, others, x)), costs
