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


def stages_of(name: str, n: int) -> tuple:
    """The first stages of a variant."""
    return dict(models.create(name).config)["stages"][:n]


# One small variant a family that has each of its kinds of block.
SMALL = {
    "convnext": ("test_convnext2", {"input_size": 32}),
    "densenet": ("densenetblur121d", {"input_size": 32, "depths": (1, 2), "growth": 8, "stem_widths": (8, 8, 16)}),
    "efficientnet": ("test_efficientnet", {"input_size": 32}),
    "inception_resnet_v2": ("inception_resnet_v2", {"input_size": 107, "depths": (2, 1, 1), "features": 64}),
    "inception_v3": (
        "inception_v3",
        {"input_size": 107, "pool_features": (32,), "widths": (32,), "final_depth": 1},
    ),
    "maxvit": ("maxvit_tiny_tf_224", {"input_size": 64, "depths": (1, 1), "dims": (32, 64), "stem_dims": (16, 16)}),
    "mobilenetv3": ("mobilenetv3_small_100", {"input_size": 32, "stages": stages_of("mobilenetv3_small_100", 3)}),
    "nasnet": ("nasnetalarge", {"input_size": 64, "depth": 1, "features": 384, "stem_features": 8}),
    "resnet": ("test_resnet", {"input_size": 32}),
    "resnetv2": ("resnetv2_50t", {"input_size": 32, "depths": (2, 1), "widths": (32, 64)}),
    "swin": ("swin_tiny_patch4_window7_224", {"input_size": 56, "depths": (2, 2), "num_heads": (1, 2), "dim": 16}),
    "vgg": ("vgg11_bn", {"input_size": 64, "depths": (1, 2), "widths": (8, 16), "head_features": 32}),
    "vit": ("test_vit", {"input_size": 32}),
    "xception": (
        "legacy_xception",
        {
            "input_size": 64,
            "stem_widths": (8, 16),
            "entry_widths": (16, 32),
            "middle_depth": 2,
            "exit_widths": (48, 64, 64),
        },
    ),
}


def small(family: str, **overrides) -> models.Model:
    name, options = SMALL[family]
    return models.create(name, **{"n_classes": 7, **options, **overrides})


def randomised(model: models.Model) -> dict:
    """Variables in which nothing is at its initial value."""
    variables = model.init(jax.random.key(0))
    flat = core.flatten(variables)
    rng = np.random.default_rng(0)
    return core.unflatten(
        {path: leaf + jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype) for path, leaf in flat.items()}
    )


def images(model: models.Model, batch: int = 2) -> jax.Array:
    shape = model.image(batch).shape
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


@pytest.fixture(params=models.families(), scope="module")
def family(request):
    return request.param


def test_every_family_has_a_small_variant():
    assert set(SMALL) == set(models.families())


def test_remat_and_scan_give_the_same_gradients(family):
    options = inspect.signature(small(family).fn).parameters
    reference = small(family, **{"drop_path_rate" if "drop_path_rate" in options else "drop_rate": 0.2})
    variables, x = randomised(reference), images(reference)

    def training(model):
        def loss(params):
            output = model.apply({**variables, "params": params}, x, training=True, rng=jax.random.key(2))
            return jnp.mean(output.value**2), output

        (_, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
        return output, gradients

    output, gradients = training(reference)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients))
    for options in ({"remat": True}, {"scan": True}):
        again, same = training(reference.replace(**options))
        chex.assert_trees_all_close(again, output, rtol=1e-4, atol=1e-4)
        chex.assert_trees_all_close(same, gradients, rtol=1e-3, atol=1e-4 * largest)


def test_bfloat16(family):
    model = small(family)
    variables, x = randomised(model), images(model)
    expected = jax.jit(lambda v, x: model.apply(v, x).value)(variables, x)
    half = jax.jit(lambda v, x: model.replace(dtype="bfloat16").apply(v, x).value)(variables, x)
    assert half.dtype == jnp.bfloat16
    assert relative_error(half.astype(jnp.float32), expected) < 0.05


def test_vmap_over_models_and_single_images(family):
    model = small(family)
    variables, x = randomised(model), images(model)
    run = jax.jit(lambda v, x: model.apply(v, x).value)
    expected = run(variables, x)
    single = jax.jit(jax.vmap(lambda v, x: model.apply(v, x[None]).value[0], (None, 0)))(variables, x)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)
    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
    many = jax.jit(jax.vmap(lambda v, x: model.apply(v, x).value, (0, None)))(ensemble, x)
    np.testing.assert_allclose(many[1], expected, rtol=1e-4, atol=1e-4)


def test_heads_and_intermediates(family):
    model = small(family)
    variables, x = model.init(jax.random.key(0)), images(model)
    head, pooled, features = (core.shapes(model.replace(n_classes=n)._call, x)[0] for n in (7, -1, 0))
    assert head.shape == (2, 7) and pooled.ndim == 2 and features.ndim in (3, 4)
    lacking = core.flatten(model.replace(n_classes=-1).spec())
    assert not any(path.startswith(f"params/{model.classifier}/kernel") for path in lacking)
    names = [feature.name for feature in model.feature_info]
    prefix = names[0].split("_")[0]
    assert names == [f"{prefix}_{i}" for i in range(len(names))] and prefix in ("stage", "block")
    captured = model.apply(variables, x, capture=f"{prefix}_[01]").intermediates
    assert list(captured) == [f"{prefix}_0", f"{prefix}_1"]
    for feature in model.feature_info[:2]:
        assert captured[feature.name].shape[-1] == feature.channels


def test_wrong_images_say_what_is_right(family):
    model = small(family)
    variables, x = model.init(jax.random.key(0)), images(model)
    with pytest.raises(
        ValueError, match=r"takes images of 3 channels, got shape \(2, 3, \d+, \d+\) \(channels come last"
    ):
        model.apply(variables, x.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="takes images of shape"):
        model.apply(variables, x[0])
    with pytest.raises(ValueError, match="normalised floating-point images, got uint8"):
        model.apply(variables, x.astype(jnp.uint8))


def test_models_are_values(family):
    model = small(family)
    assert model == small(family) and hash(model) == hash(small(family))
    assert model != small(family, n_classes=3)
    assert jax.jit(lambda m, v, x: m.apply(v, x).value, static_argnums=0)(
        model, model.init(jax.random.key(0)), images(model)
    ).shape == (2, 7)


def test_exports(family):
    model = small(family)
    variables, x = randomised(model), images(model)
    run = jax.jit(lambda v, x: model.apply(v, x).value)
    exported = jax.export.export(run)(variables, x)
    np.testing.assert_allclose(exported.call(variables, x), run(variables, x), rtol=1e-5, atol=1e-5)


def test_fused_gives_the_same_without_batch_norm(family):
    model = small(family)
    variables, x = randomised(model), images(model)
    fused, folded = models.fuse(model, variables)
    assert not core.mismatches(fused.spec(), folded, extra=True)
    norms = sum(path.endswith("/mean") for path in core.flatten(variables))
    left = sum(path.endswith("/mean") for path in core.flatten(folded))
    # Some normalise before convolutions too, NASNet concatenated ones; those norms have nothing to be folded into.
    assert left == 0 or (family in ("densenet", "maxvit", "nasnet", "resnetv2") and left < norms)
    expected = jax.jit(lambda v, x: model.apply(v, x).value)(variables, x)
    found = jax.jit(lambda v, x: fused.apply(v, x).value)(folded, x)
    assert relative_error(found, expected) < 1e-5
    with pytest.raises(ValueError, match="fused for inference"):
        fused.apply(folded, x, training=True)


def test_unknown_names_and_options():
    with pytest.raises(LookupError, match="no architecture called 'resnet5O'; did you mean resnet50"):
        models.create("resnet5O")
    with pytest.raises(TypeError, match=r"resnet50 has no option dept; it has .*depths"):
        models.create("resnet50", dept=3)
