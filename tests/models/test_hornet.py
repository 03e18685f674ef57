"""HorNet against a network in torch that has the authors' names, and against the authors' own shapes."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flaim
import flaim_core as core
from flaim import models
from flaim.weights import load
from tests import oracle
from tests.against_torch.hornet import HorNet, randomise
from tests.oracle import relative_error
from tests.parity import FROM_TORCH, assert_gradient_parity, assert_parity, torch_name, variables_from

# Names and shapes that the authors' code gives its models; `tools/make_hornet_structure.py` wrote them.
STRUCTURE = json.loads(Path(__file__).parents[1].joinpath("data/hornet_structure.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", models.list_architectures("^hornet_"))
def test_leaves_are_the_authors(name):
    expected = {
        leaf.replace("*", str(i)): tuple(shape)
        for leaf, (count, shape) in STRUCTURE[name].items()
        for i in range(count)
    }
    found = {}
    for path, leaf in core.flatten(models.create(name).spec()).items():
        axes = FROM_TORCH[leaf.layout] or tuple(range(len(leaf.shape)))
        found[torch_name(path)] = tuple(leaf.shape[axes.index(i)] for i in range(len(axes)))
    assert found == expected


def test_every_variant_is_there():
    assert set(STRUCTURE) == set(models.list_architectures("^hornet_"))


def pair(filters=(None,) * 4, *, dim=16, depths=(1, 1, 1, 1), **options):
    """The network in torch, randomised, and flaim's model of it."""
    reference = randomise(HorNet(dim, depths, filters, options.get("n_classes", 1000)))
    mixers = tuple(size and partial(core.global_local_filter, size=size) for size in filters)
    return reference, models.create("hornet_tiny_7x7", dim=dim, depths=depths, mixers=mixers, **options)


# No filters; then filters that are stretched to larger maps, and shrunk to smaller ones, the last with a single row.
CASES = {
    "7x7": ((None,) * 4, (70, 45)),
    "stretched": ((None, (3, 2), (2, 2)), (48, 72)),
    "shrunk": ((None, (14, 8), (7, 5)), (16, 112)),
}


@pytest.mark.parametrize("filters, size", CASES.values(), ids=CASES.keys())
def test_logits_are_those_of_torch(filters, size):
    reference, model = pair(filters, depths=(1,) * len(filters), input_size=size)
    assert_parity(model, reference)
    first, second = oracle.run(reference, oracle.image(size))
    assert relative_error(first, second) > 1e-2


def test_heads_and_stages_are_those_of_torch():
    filters, size = (None, None, (4, 3), (2, 2)), (64, 96)
    reference, model = pair(filters, depths=(1, 2, 2, 1), input_size=size)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(size)
    with torch.no_grad():
        maps = reference.maps(oracle.to_torch(images))
        pooled = reference.norm(maps[-1].mean((2, 3)))
    found, pooled_found = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="stage_*"),
            model.replace(n_classes=-1).apply(v, x).value,
        )
    )(variables, images)
    assert relative_error(found.value, maps[-1].permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(pooled_found, pooled) < 1e-5
    assert list(found.intermediates) == [f"stage_{i}" for i in range(5)]
    for i, stage in enumerate(maps, 1):
        assert relative_error(found.intermediates[f"stage_{i}"], stage.permute(0, 2, 3, 1)) < 1e-5
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (32, 8), (64, 16), (128, 32)]


def test_gradients_are_those_of_torch():
    reference, model = pair((None, (3, 2)), dim=8, depths=(1, 1), input_size=(24, 32), n_classes=5)
    assert_gradient_parity(model, reference)


def test_a_filter_is_a_circular_convolution():
    """The product of spectra against the sum over all pixels, in float64."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 5, 6, 4)), rng.standard_normal((2, 5, 6))
    spectrum = np.fft.rfft2(kernel)
    with jax.enable_x64(True):
        run = partial(core.global_local_filter, size=(5, 4), norm=lambda scope, x: x)
        params = core.init(run, jax.random.key(0), jnp.asarray(x))["params"]
        params["complex_weight"] = jnp.asarray(np.stack([spectrum.real, spectrum.imag], -1))
        found = np.asarray(run(params, jnp.asarray(x)))[..., 1::2]
    expected = sum(
        kernel[:, i, j] * np.roll(x[..., 2:], (i, j), (1, 2)) for i in range(kernel.shape[1]) for j in range(6)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_smallest_variant_at_its_size():
    reference = randomise(HorNet(64, (2, 3, 18, 2), (None, None, (14, 8), (7, 4))))
    assert_parity(models.create("hornet_tiny_gf"), reference, images=oracle.image(224, batch=1))


def test_wrong_widths_say_what_is_right():
    x = jnp.zeros((1, 8, 8, 12))
    with pytest.raises(ValueError, match="width 12 cannot be halved 3 times, for order 4"):
        core.spec(core.recursive_gated_conv, x, order=4)
    with pytest.raises(ValueError, match="width 3 does not divide into two halves"):
        core.spec(core.global_local_filter, x[..., :3], size=(8, 5))


@pytest.mark.parametrize("name", ["hornet_tiny", "hornet_tiny_7x7"])
def test_a_file_of_the_authors_is_loaded_by_its_path(name, tmp_path):
    reference, model = pair(input_size=32, n_classes=11)
    torch.save({"model": reference.state_dict(), "epoch": 299}, tmp_path / "hornet.pth")
    options = {"dim": 16, "depths": (1, 1, 1, 1), "input_size": 32}
    found, variables, norm_stats = models.get_model(name, tmp_path / "hornet.pth", **options)
    assert (found.name, found.n_classes) == ("hornet_tiny_7x7", 11) and norm_stats["mean"][0] == 0.485
    expected = core.flatten(variables_from(model.spec(), oracle.state(reference)))
    leaves = core.flatten(variables)
    assert leaves.keys() == expected.keys()
    assert all(np.array_equal(leaves[path], value) for path, value in expected.items())


def test_the_catalogues_names():
    names = {"tiny": "in1k_224", "small": "in1k_224", "base": "in1k_224", "large": "in22k_224"}
    assert dict(flaim.list_models("^hornet")) == {f"hornet_{size}": params for size, params in names.items()}
    for size in names:
        assert flaim.weights.resolve(f"hornet_{size}", True).architecture == f"hornet_{size}_7x7"
    with pytest.raises(flaim.weights.CatalogueError, match=r"no repository is known to have hornet_tiny in1k_224"):
        load("hornet_tiny")
