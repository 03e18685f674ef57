"""Inference in microbatches gives what the whole batch gives."""

import jax
import pytest

from flaim import models
from flaim_core import microbatch
from tests.numerics import relative_error

SIZE = 32
IMAGES = jax.random.normal(jax.random.key(1), (6, SIZE, SIZE, 3))


@pytest.fixture(autouse=True)
def two_images_at_once(monkeypatch):
    monkeypatch.setattr(microbatch, "_PIXELS_PER_CORE", SIZE**2)
    monkeypatch.setattr(microbatch, "_cores", lambda: 2)


def _model(n_classes: int = 5) -> models.Model:
    return models.create("resnet18", depths=(1, 1), widths=(16, 32), n_classes=n_classes, input_size=SIZE)


def _variables(model: models.Model) -> dict:
    """Variables of which none is zero."""
    return jax.tree.map(lambda x: x + 0.1, model.init(jax.random.key(0)))


def _lowered(run, *args) -> str:
    return jax.jit(run).lower(*args).as_text()


@pytest.mark.parametrize("n_classes", [5, -1, 0])
def test_outputs_and_intermediates(n_classes):
    model = _model(n_classes)
    variables = _variables(model)
    run = jax.jit(lambda variables, x: model.apply(variables, x, capture="*"))
    found, expected = run(variables, IMAGES), model.apply(variables, IMAGES, capture="*")
    assert "while" in _lowered(run, variables, IMAGES)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        assert a.shape == b.shape and relative_error(a, b) < 1e-6


@pytest.mark.parametrize("batch, n", [(1, 1), (2, 1), (3, 3), (4, 2), (6, 3), (7, 7)])
def test_microbatches_are_equal_and_small_enough(batch, n):
    found = []
    x = jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), "f4")
    jax.eval_shape(lambda x: found.append(microbatch.inference_microbatches(x, [])), x)
    assert found == [n]


def test_the_batch_stays_whole_in_training_under_transformations_and_on_other_platforms():
    model = _model()
    variables = _variables(model)

    def run(variables, x, training=False):
        return model.apply(variables, x, training=training, rng=jax.random.key(0)).value

    assert "while" in _lowered(run, variables, IMAGES)
    assert "while" not in _lowered(lambda v, x: run(v, x, training=True), variables, IMAGES)
    assert "while" not in _lowered(lambda x: jax.vmap(lambda x: run(variables, x[None]))(x), IMAGES)
    assert "while" not in _lowered(lambda v, x: jax.jvp(lambda x: run(v, x), (x,), (x,)), variables, IMAGES)
    exported = jax.export.export(jax.jit(run), platforms=["cuda"])(variables, IMAGES)
    assert "while" not in exported.mlir_module()


def test_gradients_for_variables_in_inference():
    model = _model()
    variables = _variables(model)

    def loss(variables, x):
        return (model.apply(variables, x).value ** 2).sum()

    compiled, eager = jax.jit(jax.grad(loss))(variables, IMAGES), jax.grad(loss)(variables, IMAGES)
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(eager)):
        assert relative_error(a, b) < 1e-5


DERIVATIVES = {
    "forward": lambda run, variables: jax.jacfwd(lambda bright: run(variables, IMAGES + bright))(0.5),
    "reverse": lambda run, variables: jax.jacrev(lambda bright: run(variables, IMAGES + bright))(0.5),
    "mapped": lambda run, variables: jax.vmap(run, (None, 0))(variables, jax.numpy.stack([IMAGES, 0.5 * IMAGES])),
}


@pytest.mark.parametrize("transform", DERIVATIVES.values(), ids=DERIVATIVES)
def test_a_compiled_model_is_differentiated_and_mapped(transform):
    model = _model()
    variables = _variables(model)

    def run(variables, x):
        return model.apply(variables, x).value

    assert "while" in _lowered(run, variables, IMAGES)
    assert relative_error(transform(jax.jit(run), variables), transform(run, variables)) < 1e-5
