"""Models are values: they pickle, copy and compare by what they say, and so do frameworks' modules that hold one."""

import copy
import functools
import pickle
import subprocess
import sys

import chex
import equinox
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import flaim_core as core
from flaim import models
from flaim.adapters import eqx, linen
from flaim.adapters import nnx as nnx_adapter
from tests.small import images, randomised, small

ELSEWHERE = """
import pickle, sys
from flaim import models
found = pickle.load(open(sys.argv[1], "rb"))
assert found == {name: models.create(name) for name in models.list_architectures()}
assert {model: model.name for model in found.values()} == {models.create(name): name for name in found}
"""


def test_every_architecture_is_the_same_in_another_process(tmp_path):
    every = {name: models.create(name) for name in models.list_architectures()}
    assert every == copy.deepcopy(every)
    (tmp_path / "models").write_bytes(pickle.dumps(every))
    subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path / "models"], check=True)


def test_specs_are_values_too():
    """Of families whose leaves have every kind of initialiser."""
    for name in (
        "test_vit",
        "efficientnet_cc_b0_4e",
        "test_convnext",
        "test_coatnet",
        "vit_dpwee_patch16_reg1_gap_256",
    ):
        spec = models.create(name).spec()
        assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)


@pytest.mark.parametrize(
    "option",
    [
        jax.nn.mish,
        jnp.tanh,
        functools.partial(jax.nn.gelu, approximate=False),
        functools.partial(jax.nn.leaky_relu, negative_slope=0.2),
    ],
    ids=["mish", "tanh", "gelu", "leaky_relu"],
)
def test_functions_of_jax_as_options(option):
    model = models.create("test_vit", depth=1, input_size=32, act=option)
    again = models.create("test_vit", depth=1, input_size=32, act=option)
    assert pickle.loads(pickle.dumps(model)) == copy.deepcopy(model) == again and hash(model) == hash(again)
    assert model != models.create("test_vit", depth=1, input_size=32, act=jax.nn.relu)
    variables, x = randomised(model), images(model)
    plain = models.create("test_vit", depth=1, input_size=32, act=lambda x: option(x))
    chex.assert_trees_all_equal(model.apply(variables, x).value, plain.apply(variables, x).value)


def test_equal_bound_arguments_are_equal_options():
    def create(**arguments):
        return models.create("resnet18", norm=functools.partial(core.batch_norm, **arguments))

    assert create(eps=1e-3) == create(eps=1e-3) and hash(create(eps=1e-3)) == hash(create(eps=1e-3))
    assert create(eps=1e-3) != create(eps=1e-5) and create(eps=1e-3) != create(momentum=1e-3)


def test_modules_of_frameworks():
    model = small("vit", depth=1, act=jax.nn.relu, norm=functools.partial(core.layer_norm, eps=1e-3))
    variables, x = randomised(model), images(model)
    expected = jax.jit(lambda v, x: model.apply(v, x).value)(variables, x)

    module, tree = linen.wrap(model, variables)
    module_again, tree_again = pickle.loads(pickle.dumps((module, tree)))
    assert module_again == module
    chex.assert_trees_all_equal(jax.jit(module_again.apply)(tree_again, x), expected)

    node = pickle.loads(pickle.dumps(nnx_adapter.wrap(model, variables)))
    chex.assert_trees_all_equal(nnx.jit(lambda node, x: node(x))(node, x), expected)

    leaves, state = pickle.loads(pickle.dumps(eqx.wrap(model, variables)))
    value, _ = equinox.filter_jit(lambda module, x, state: module(x, state))(leaves, x, state)
    chex.assert_trees_all_equal(value, expected)
