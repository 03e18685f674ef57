"""What holds for every family: transformations, dtypes, captures, heads, dropping."""

import inspect
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from flaim import models
from tests.numerics import relative_error
from tests.small import SMALL, images, randomised, small


@pytest.fixture(params=models.families(), scope="module")
def family(request):
    return request.param


class Case(NamedTuple):
    """A family's small model, its variables and two images, and its logits of them."""

    model: models.Model
    variables: dict
    x: jax.Array
    logits: jax.Array


@pytest.fixture(scope="module")
def case(family):
    model = small(family)
    variables, x = randomised(model), images(model)
    return Case(model, variables, x, jax.jit(lambda v, x: model.apply(v, x).value)(variables, x))


def test_every_family_has_a_small_variant():
    assert set(SMALL) == set(models.families())


def test_logits_depend_on_the_image(case):
    first, second = case.logits
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(case.logits).max()


def test_remat_and_scan_give_the_same_gradients(family):
    options = inspect.signature(small(family).fn).parameters
    reference = small(family, **{"drop_path_rate" if "drop_path_rate" in options else "drop_rate": 0.2})
    variables, x = randomised(reference), images(reference)

    def training(model):
        def loss(params):
            output = model.apply({**variables, "params": params}, x, training=True, rng=jax.random.key(2))
            return jnp.mean(output.value**2), output

        return jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(variables["params"])

    def run(traced):
        (_, output), gradients = traced.lower().compile()(variables["params"])
        return output, gradients

    plain = training(reference)
    output, gradients = run(plain)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients))
    for options in ({"remat": True}, {"scan": True}):
        traced = training(reference.replace(**options))
        if str(traced.jaxpr) == str(plain.jaxpr):  # without stacks of equal blocks there is nothing to scan
            continue
        again, same = run(traced)
        chex.assert_trees_all_close(again, output, rtol=1e-4, atol=1e-4)
        chex.assert_trees_all_close(same, gradients, rtol=1e-3, atol=1e-4 * largest)


def test_bfloat16(case):
    model = case.model.replace(dtype="bfloat16")
    half = jax.jit(lambda v, x: model.apply(v, x).value)(case.variables, case.x)
    assert half.dtype == jnp.bfloat16
    assert relative_error(half.astype(jnp.float32), case.logits) < 0.05


def test_vmap_over_models_and_single_images(case):
    def mapped(variables, several, x):
        single = jax.vmap(lambda v, x: case.model.apply(v, x[None]).value[0], (None, 0))(variables, x)
        return single, jax.vmap(lambda v, x: case.model.apply(v, x).value, (0, None))(several, x)

    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), case.variables)
    single, many = jax.jit(mapped)(case.variables, ensemble, case.x)
    np.testing.assert_allclose(single, case.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(many[1], case.logits, rtol=1e-4, atol=1e-4)


def test_heads_and_intermediates(case):
    model, x = case.model, case.x
    head, pooled, features = (core.shapes(model.replace(n_classes=n)._call, x)[0] for n in (7, -1, 0))
    assert head.shape == (2, 7) and pooled.ndim == 2 and features.ndim in (3, 4)
    lacking = core.flatten(model.replace(n_classes=-1).spec())
    assert not any(path.startswith(f"params/{model.classifier}/kernel") for path in lacking)
    names = [feature.name for feature in model.feature_info]
    prefix = names[0].split("_")[0]
    assert names == [f"{prefix}_{i}" for i in range(len(names))] and prefix in ("stage", "block")
    captured = jax.eval_shape(lambda v, x: model.apply(v, x, capture=f"{prefix}_[01]"), case.variables, x).intermediates
    assert list(captured) == [f"{prefix}_0", f"{prefix}_1"]
    for feature in model.feature_info[:2]:
        assert captured[feature.name].shape[-1] == feature.channels


def test_wrong_images_say_what_is_right(case):
    model, variables, x = case[:3]
    with pytest.raises(
        ValueError, match=r"takes images of 3 channels, got shape \(2, 3, \d+, \d+\) \(channels come last"
    ):
        model.apply(variables, x.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="takes images of shape"):
        model.apply(variables, x[0])
    with pytest.raises(ValueError, match="normalised floating-point images, got uint8"):
        model.apply(variables, x.astype(jnp.uint8))


def test_models_are_values(family, case):
    model = case.model
    assert model == small(family) and hash(model) == hash(small(family))
    assert model != small(family, n_classes=3)
    run = jax.jit(lambda m, v, x: m.apply(v, x).value, static_argnums=0)
    assert run.trace(model, case.variables, case.x).out_info.shape == (2, 7)


def test_fused_gives_the_same_without_batch_norm(family, case):
    model, variables, x = case[:3]
    fused, folded = models.fuse(model, variables)
    assert not core.mismatches(fused.spec(), folded, extra=True)
    norms = sum(path.endswith("/mean") for path in core.flatten(variables))
    left = sum(path.endswith("/mean") for path in core.flatten(folded))
    # Some normalise before convolutions too, NASNet concatenated ones; those norms have nothing to be folded into.
    assert left == 0 or (family in ("densenet", "maxvit", "nasnet", "resnetv2", "van") and left < norms)
    found = jax.jit(lambda v, x: fused.apply(v, x).value)(folded, x)
    assert relative_error(found, case.logits) < 1e-5
    with pytest.raises(ValueError, match="fused for inference"):
        fused.apply(folded, x, training=True)


def test_unknown_names_and_options():
    with pytest.raises(LookupError, match="no architecture called 'resnet5O'; did you mean resnet50"):
        models.create("resnet5O")
    with pytest.raises(TypeError, match=r"resnet50 has no option dept; it has .*depths"):
        models.create("resnet50", dept=3)
