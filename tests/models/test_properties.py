"""What holds for every family: transformations, dtypes, captures, heads, dropping."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from flaim import models
from tests.numerics import relative_error
from tests.small import SMALL, UNLIKE, images, randomised, small
from tests.small import case as small_case


@pytest.fixture(params=models.families(), scope="module")
def family(request):
    return request.param


@pytest.fixture(scope="module")
def case(family):
    return small_case(family)


def test_every_family_has_a_small_variant():
    assert set(SMALL) == set(models.families())


def test_logits_depend_on_the_image(case):
    first, second, _ = case.logits
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(case.logits).max()


def test_remat_and_scan_change_nothing_in_training(family):
    """Gradients are traced for every family, and compared for `UNLIKE`; scanned values are compared for all."""
    options = inspect.signature(small(family).fn).parameters
    reference = small(family, **{"drop_path_rate" if "drop_path_rate" in options else "drop_rate": 0.2})
    variables, x = randomised(reference), images(reference)

    def loss(model, params):
        output = model.apply({**variables, "params": params}, x, training=True, rng=jax.random.key(2))
        return jnp.mean(output.value**2), output

    def step(model, gradients):
        function = jax.value_and_grad(loss, 1, has_aux=True) if gradients else loss
        return jax.jit(lambda params: function(model, params)).trace(variables["params"])

    def run(traced):
        return traced.lower().compile()(variables["params"])

    scanned, remat = reference.replace(scan=True), reference.replace(remat=True)
    for model in (scanned, remat):
        _, gradients = step(model, True).out_info
        assert jax.tree.structure(gradients) == jax.tree.structure(variables["params"])
    if family in UNLIKE:
        (_, output), gradients = run(step(reference, True))
        assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
        largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients))
        for model in (scanned, remat):
            (_, again), same = run(step(model, True))
            chex.assert_trees_all_close(again, output, rtol=1e-4, atol=1e-4)
            chex.assert_trees_all_close(same, gradients, rtol=1e-3, atol=1e-4 * largest)
    else:
        plain, scan = step(reference, False), step(scanned, False)
        if str(scan.jaxpr) != str(plain.jaxpr):  # without stacks of equal blocks there is nothing to scan
            chex.assert_trees_all_close(run(scan), run(plain), rtol=1e-4, atol=1e-4)


def test_bfloat16(case):
    model = case.model.replace(dtype="bfloat16")
    half = jax.jit(lambda v, x: model.apply(v, x).value)(case.variables, case.x)
    assert half.dtype == jnp.bfloat16
    assert relative_error(half.astype(jnp.float32), case.logits) < 0.05


def test_vmap_over_models_and_single_images(family, case):
    def mapped(variables, several, x):
        single = jax.vmap(lambda v, x: case.model.apply(v, x[None]).value[0], (None, 0))(variables, x)
        return single, jax.vmap(lambda v, x: case.model.apply(v, x).value, (0, None))(several, x)

    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), case.variables)
    traced = jax.jit(mapped).trace(case.variables, ensemble, case.x)
    assert [info.shape for info in traced.out_info] == [(3, 7), (2, 3, 7)]
    if family in UNLIKE:
        single, many = traced.lower().compile()(case.variables, ensemble, case.x)
        np.testing.assert_allclose(single, case.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(many[1], case.logits, rtol=1e-4, atol=1e-4)


def test_heads_and_intermediates(case):
    model, x = case.model, case.x
    head, pooled, features = (core.shapes(model.replace(n_classes=n)._call, x)[0] for n in (7, -1, 0))
    assert head.shape == (3, 7) and pooled.ndim == 2 and features.ndim in (3, 4)
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
        ValueError, match=r"takes images of 3 channels, got shape \(3, 3, \d+, \d+\) \(channels come last"
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
    assert run.trace(model, case.variables, case.x).out_info.shape == (3, 7)


def test_fused_gives_the_same_without_batch_norm(family, case):
    model, variables, x = case[:3]
    fused, folded = models.fuse(model, variables)
    assert not core.mismatches(fused.spec(), folded, extra=True)
    norms = sum(path.endswith("/mean") for path in core.flatten(variables))
    left = sum(path.endswith("/mean") for path in core.flatten(folded))
    # Some normalise before convolutions too, NASNet concatenated maps, XCiT activations: nothing to be folded into.
    partly = ("densenet", "maxvit", "nasnet", "resnetv2", "van", "xcit")
    none = ("convmixer",)  # all its norms follow activations
    assert left == 0 or (family in partly and left < norms) or (family in none and left == norms)
    found = jax.jit(lambda v, x: fused.apply(v, x).value)(folded, x)
    assert relative_error(found, case.logits) < 1e-5
    with pytest.raises(ValueError, match="fused for inference"):
        fused.apply(folded, x, training=True)


def test_unknown_names_and_options():
    with pytest.raises(LookupError, match="no architecture called 'resnet5O'; did you mean resnet50"):
        models.create("resnet5O")
    with pytest.raises(TypeError, match=r"resnet50 has no option dept; it has .*depths"):
        models.create("resnet50", dept=3)
