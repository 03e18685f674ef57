"""A model in each framework, compiled, as its users would run it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any


class Framework(StrEnum):
    """What can run a model; "jax" is the framework-free one."""

    jax = "jax"
    linen = "linen"
    nnx = "nnx"
    eqx = "eqx"
    haiku = "haiku"

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return _TITLES[self]

    def forward(self, model: Any, variables: Mapping) -> Callable:
        """A compiled function from images to logits.

        Raises:
            ImportError: The framework is not installed; the message names the extra.
        """
        return _FORWARD[self](model, variables)


def _jax(model, variables):
    import jax

    return partial(jax.jit(lambda variables, x: model.apply(variables, x).value), variables)


def _linen(model, variables):
    import jax

    from flaim.adapters import linen

    module, variables = linen.wrap(model, variables)
    return partial(jax.jit(module.apply), variables)


def _nnx(model, variables):
    from flaim.adapters import nnx as adapter

    from flax import nnx  # isort: skip -- the adapter has the better message where it is missing

    module = adapter.wrap(model, variables)
    module.eval()
    return partial(nnx.jit(lambda module, x: module(x)), module)


def _eqx(model, variables):
    from flaim.adapters import eqx as adapter

    import equinox as eqx  # isort: skip

    module, state = adapter.wrap(model, variables)
    module = eqx.nn.inference_mode(module)
    return partial(eqx.filter_jit(lambda module, state, x: module(x, state)[0]), module, state)


def _haiku(model, variables):
    import jax

    from flaim.adapters import haiku

    transformed, params, state = haiku.wrap(model, variables)
    apply = jax.jit(partial(transformed.apply, is_training=False))
    return lambda x: apply(params, state, None, x)[0]


_TITLES = {
    Framework.jax: "JAX alone",
    Framework.linen: "Flax Linen",
    Framework.nnx: "Flax NNX",
    Framework.eqx: "Equinox",
    Framework.haiku: "Haiku",
}
_FORWARD = {
    Framework.jax: _jax,
    Framework.linen: _linen,
    Framework.nnx: _nnx,
    Framework.eqx: _eqx,
    Framework.haiku: _haiku,
}
