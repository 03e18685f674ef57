"""Models quantised by qwix: run as `python -m tests.quantisation.child FAMILY ...`, a line of JSON for each.

In a process of its own: qwix puts its own arrays in the place of parameters, which run-time checks of types refuse.
"""

import json
import sys
import traceback

import jax
import jax.numpy as jnp
import qwix
from flax import nnx

import flaim_core
from flaim import models
from flaim.adapters import linen
from flaim.adapters import nnx as adapter
from flaim_core.programs import equations
from tests.numerics import relative_error
from tests.small import images, randomised, small

RULES = [qwix.QuantizationRule(module_path=".*", weight_qtype=jnp.int8, act_qtype=jnp.int8)]


def products(jaxpr) -> list[set[str]]:
    """The operands' types of each matrix product and convolution in a program."""
    return [
        {str(operand.aval.dtype) for operand in equation.invars}
        for equation, _ in equations(jaxpr)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]


def quantised_linen(model: models.Model, variables: dict, x: jax.Array, provider: type):
    """A function of images, and variables, in Linen."""
    module, variables = linen.wrap(model, variables)
    module = qwix.quantize_model(module, provider(RULES))
    if provider is qwix.PtqProvider:
        abstract = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
        variables = {**variables, "params": qwix.quantize_params(variables["params"], abstract)}
    return module.apply, variables


def quantised_nnx(model: models.Model, variables: dict, x: jax.Array, provider: type):
    module = qwix.quantize_model(adapter.wrap(model, variables), provider(RULES), x)
    definition, state = nnx.split(module)
    return lambda state, x: nnx.merge(definition, state)(x), state


def check(family: str) -> str | None:
    """What is wrong with a family's quantised models, None where nothing is."""
    model = small(family)
    variables, x = randomised(model), images(model)
    expected = model.apply(variables, x).value
    kernels = sum(path.endswith("/kernel") for path in flaim_core.flatten(variables))
    for quantise in (quantised_linen, quantised_nnx):
        for provider in (qwix.QtProvider, qwix.PtqProvider):
            run, state = quantise(model, variables, x, provider)
            found = products(jax.make_jaxpr(lambda s, x, run=run: run(s, x))(state, x).jaxpr)
            if len(found) < kernels or any(types != {"int8"} for types in found):
                return f"{quantise.__name__}, {provider.__name__}: of {kernels} kernels' products are quantised {found}"
            if (error := relative_error(jax.jit(run)(state, x), expected)) > 0.2:
                return f"{quantise.__name__}, {provider.__name__}: {error:.2f} off"
    return None


def main(*families: str) -> None:
    for family in families:
        try:
            error = check(family)
        except Exception:
            error = traceback.format_exc()
        print(json.dumps({"family": family, "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
