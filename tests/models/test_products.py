"""Every matrix product and convolution of every family: the precision asked for reaches it, and so do interceptors."""

import contextlib
import re
import types

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

import flaim_core
from flaim import models
from flaim_core import _jax
from tests.small import UNLIKE, small


@pytest.fixture(params=models.families(), scope="module")
def family(request):
    return request.param


def training_step(model: models.Model):
    """Value and gradients, of parameters and images, as functions of variables and images."""

    def loss(params, x, variables):
        output = model.apply({**variables, "params": params}, x, training=True, rng=jax.random.key(2))
        return jnp.mean(output.value**2)

    def step(variables, x):
        return model.apply(variables, x).value, jax.grad(loss, (0, 1))(variables["params"], x, variables)

    return step


def abstract(model: models.Model) -> tuple:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return shapes, model.image(2)


@pytest.mark.parametrize("mode", ["auto", "portable"])
def test_precision_reaches_every_product(family, mode):
    model = small(family)
    step, inputs = training_step(model), abstract(model)

    def highest(variables, x):
        with jax.default_matmul_precision("highest"):
            return step(variables, x)

    with flaim_core.lowering(mode):
        traced = [jax.jit(highest).trace(*inputs)]
        if family in UNLIKE:
            with jax.default_matmul_precision("highest"):
                traced.append(jax.jit(step).trace(*inputs))
    for program in traced:
        assert_highest(program)


def assert_highest(traced) -> None:
    """Lowered where nothing is asked for any more, every product of StableHLO has the precision of the trace."""
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    found = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", text)
    others = [line for line in found if line.count("HIGHEST") != 2]
    assert found and not others, f"{len(others)} of {len(found)} products, such as {others[0]}"


@contextlib.contextmanager
def intercepted(monkeypatch):
    """lax's products and `jnp.einsum`, named "intercepted", in the way of quantisation libraries: by their code."""
    with monkeypatch.context() as patch:
        for name in ("dot_general", "conv_general_dilated"):
            function = getattr(jax.lax, name)
            original = types.FunctionType(
                function.__code__, function.__globals__, function.__name__, function.__defaults__
            )
            original.__kwdefaults__ = function.__kwdefaults__
            _ORIGINALS[name] = original
            patch.setattr(function, "__code__", eval(_REPLACEMENT.format(name=name)).__code__)
        einsum = jnp.einsum
        patch.setattr(jnp, "einsum", lambda *args, **kwargs: _named(einsum, *args, **kwargs))
        yield


_ORIGINALS: dict = {}
_REPLACEMENT = f"lambda *a, **k: __import__('{__name__}', fromlist=['_']).call({{name!r}}, *a, **k)"


def _named(function, *args, **kwargs):
    with jax.named_scope("intercepted"):
        return function(*args, **kwargs)


def call(name, *args, **kwargs):
    """The original of an intercepted function."""
    return _named(_ORIGINALS[name], *args, **kwargs)


def products_of(jaxpr, seen: bool = False) -> list[bool]:
    """Of each product and convolution of a program, whether an interceptor has seen it."""
    found = []
    for equation in jaxpr.eqns:
        named = seen or "intercepted" in str(equation.source_info.name_stack)
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append(named)
        for inner in jaxprs_in_params(equation.params):
            found += products_of(inner, named)
    return found


# Convolutions with fixed weights, which are none to those who look for parameters.
BLURS = {"densenet": 1}


def test_interceptors_see_every_product(family, monkeypatch):
    """Also those of programs that were traced before, when nobody intercepted them."""
    model = small(family)
    inputs = abstract(model)

    def run(variables, x):
        return model.apply(variables, x).value

    jax.jit(run).trace(*inputs)
    with flaim_core.lowering("portable"):
        plain = products_of(jax.make_jaxpr(run)(*inputs).jaxpr)
    with intercepted(monkeypatch):
        assert _jax.lax_is_patched()
        found = products_of(jax.make_jaxpr(lambda *inputs: run(*inputs))(*inputs).jaxpr)
    assert not _jax.lax_is_patched()
    count = len(plain) - BLURS.get(family, 0)
    assert plain and not any(plain) and len(found) == count and all(found), (plain, found)
