"""A model in each framework, compiled, as its users would run it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from importlib import import_module
from typing import Any


class Framework(StrEnum):
    """What can run a model; "jax" is the framework-free one."""

    jax = "jax"
    linen = "linen"
    nnx = "nnx"
    eqx = "eqx"
    haiku = "haiku"

    @property
    def full_name(self) -> str:
        """Its name in a sentence."""
        return {"jax": "JAX alone", "linen": "Flax Linen", "nnx": "Flax NNX", "eqx": "Equinox", "haiku": "Haiku"}[self]

    def forward(self, model: Any, variables: Mapping) -> Callable:
        """A compiled function from images to logits.

        Raises:
            ImportError: The framework is not installed; the message names the extra.
        """
        if self is Framework.jax:
            return _jax(model, variables)
        adapter = import_module(f"flaim.adapters.{self}")
        return {"linen": _linen, "nnx": _nnx, "eqx": _eqx, "haiku": _haiku}[self](adapter.wrap(model, variables))


def _jax(model, variables):
    import jax

    return partial(jax.jit(lambda variables, x: model.apply(variables, x).value), variables)


def _linen(wrapped):
    import jax

    module, variables = wrapped
    return partial(jax.jit(module.apply), variables)


def _nnx(module):
    from flax import nnx

    module.eval()
    return partial(nnx.jit(lambda module, x: module(x)), module)


def _eqx(wrapped):
    import equinox as eqx

    module, state = wrapped
    forward = eqx.filter_jit(lambda module, state, x: module(x, state)[0])
    return partial(forward, eqx.nn.inference_mode(module), state)


def _haiku(wrapped):
    import jax

    transformed, params, state = wrapped
    apply = jax.jit(partial(transformed.apply, is_training=False))
    return lambda x: apply(params, state, None, x)[0]
