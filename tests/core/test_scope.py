"""The scope and its readings: spec, init, apply, plain inference; transformations inside and outside."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.leaks import checking_leaks

X = jax.ShapeDtypeStruct((4, 6), jnp.float32)


@core.kernel
def block(scope, x, *, drop_path_rate=0.0):
    y = core.batch_norm(scope["norm"], core.linear(scope["fc"], x, x.shape[-1]))
    scope.capture("hidden", y)
    return x + core.drop_path(scope["drop_path"], core.dropout(scope["drop"], jax.nn.relu(y), 0.3), drop_path_rate)


@core.kernel
def stack(scope, x, *, depth=3):
    rates = [0.1 * i for i in range(depth)]
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        each={"drop_path_rate": rates},
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
    )
    x = scope["last"].call(block, x)
    return core.classifier(scope["head"], x, 2)


@pytest.fixture
def x():
    return jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)


@pytest.fixture
def variables():
    variables = core.init(stack, jax.random.key(0), X)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.uniform(next(keys), leaf.shape), variables)


def test_spec_declares_each_leaf_once_with_its_path():
    leaves = core.flatten(core.spec(stack, X))
    assert leaves["params/blocks/2/fc/kernel"].shape == (6, 6)
    assert leaves["params/blocks/2/fc/kernel"].layout == "io"
    assert leaves["params/head/kernel"].shape == (6, 2)
    assert leaves["batch_stats/last/norm/var"].shape == (6,)
    assert len(leaves) == 4 * 6 + 2


def test_spec_traces_equal_blocks_once():
    calls = []

    @core.kernel
    def counted(scope, x):
        calls.append(scope.path)
        return core.linear(scope["fc"], x, 6)

    @core.kernel
    def model(scope, x):
        return scope.repeat(counted, x, 50)

    assert len(core.flatten(core.spec(model, X))) == 100
    assert len(calls) == 1


def test_init_depends_on_key_and_path_alone(variables):
    first, again = (core.init(stack, jax.random.key(0), X) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    deeper = core.init(stack, jax.random.key(0), X, depth=4)
    chex.assert_trees_all_equal(first["params"]["blocks"]["1"], deeper["params"]["blocks"]["1"])
    kernels = [first["params"]["blocks"][i]["fc"]["kernel"] for i in "012"]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])
    other = core.init(stack, jax.random.key(1), X)
    assert not np.allclose(other["params"]["head"]["kernel"], first["params"]["head"]["kernel"])
    chex.assert_trees_all_equal(first, jax.jit(lambda key: core.init(stack, key, X))(jax.random.key(0)))


def test_init_of_a_large_leaf_draws_no_value_twice():
    kernel = core.initializers.normal(1.0)(jax.random.key(0), (1024, 1000))
    assert len(np.unique(kernel)) > 0.9 * kernel.size  # blocks drawn alike would leave a quarter
    assert abs(float(kernel.std()) - 1) < 0.01 and abs(float(kernel.mean())) < 0.01


def test_plain_mapping_runs_inference(variables, x):
    expected = core.apply(stack, variables, x).value
    np.testing.assert_array_equal(stack(variables, x), expected)
    params = variables["params"]["head"]
    np.testing.assert_array_equal(core.linear(params, x, 2), core.linear({"params": params}, x, 2))


def test_training_returns_every_statistic(variables, x):
    output = core.apply(stack, variables, x, training=True, rng=jax.random.key(0))
    chex.assert_trees_all_equal_shapes(output.batch_stats, variables["batch_stats"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), output.batch_stats, variables["batch_stats"])
    assert all(jax.tree.leaves(moved))
    still = core.apply(stack, variables, x).batch_stats
    chex.assert_trees_all_equal(still, variables["batch_stats"])


def test_capture_keeps_what_matches(variables, x):
    assert core.apply(stack, variables, x).intermediates == {}
    some = core.apply(stack, variables, x, capture="block_*").intermediates
    assert list(some) == ["block_1", "block_2", "block_3"]
    everything = core.apply(stack, variables, x, capture="*").intermediates
    assert "blocks/1/hidden" in everything and "last/hidden" in everything


def _training(variables, x, **options):
    def loss(params):
        output = core.apply(
            stack, {**variables, "params": params}, x, training=True, rng=jax.random.key(3), capture="*", **options
        )
        return jnp.sum(output.value**2), output

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize("options", [{"remat": True}, {"scan": True}, {"remat": True, "scan": True}], ids=str)
def test_remat_and_scan_change_nothing(variables, x, options):
    with checking_leaks():
        (_, expected), gradients = _training(variables, x)
        (_, found), found_gradients = _training(variables, x, **options)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(found_gradients, gradients, rtol=1e-4, atol=1e-5)


def test_scan_compiles_one_block(variables, x):
    def size(scan):
        text = jax.jit(lambda v, x: core.apply(stack, v, x, scan=scan, depth=3).value).lower(variables, x).as_text()
        return text.count("dot_general")

    assert (size(False), size(True)) == (5, 3)


def test_scan_over_unequal_blocks_says_where(variables, x):
    variables["params"]["blocks"]["1"]["fc"]["kernel"] = jnp.zeros((6, 5))
    with pytest.raises(core.LeafError, match="params/blocks/1/fc/kernel: found shape"):
        core.apply(stack, variables, x, scan=True)


def test_random_keys_follow_paths(x):
    @core.kernel
    def draw(scope, x):
        return scope["a"].rng("mask"), scope["b"].rng("mask"), scope["a"].rng("other")

    first, second, third = core.apply(draw, {}, x, rng=jax.random.key(0)).value
    assert len({tuple(jax.random.key_data(k).tolist()) for k in (first, second, third)}) == 3

    @core.kernel
    def draw_twice(scope, x):
        return scope["a"].rng("mask"), scope["a"].rng("mask")

    with pytest.raises(ValueError, match="a/mask: this random key was drawn before"):
        core.apply(draw_twice, {}, x, rng=jax.random.key(0))
    with pytest.raises(ValueError, match=re.escape("pass rng=jax.random.key(...)")):
        core.apply(draw, {}, x)


def test_leaf_errors_list_everything(variables, x):
    variables["params"]["head"]["kernel"] = jnp.zeros((1,))
    del variables["params"]["blocks"]["1"]["fc"]["bias"], variables["batch_stats"]["last"]
    with pytest.raises(core.LeafError) as error:
        core.apply(stack, variables, x)
    lines = str(error.value).splitlines()
    assert "params/head/kernel: found shape (1,), expected (6, 2)" in lines
    assert "params/blocks/1/fc/bias: missing, expected shape (6,)" in lines
    assert "batch_stats/last/norm/mean: missing, expected shape (6,)" in lines
    assert len(lines) == 4


def test_declaring_a_leaf_twice_is_an_error():
    @core.kernel
    def twice(scope, x):
        return core.linear(scope["fc"], core.linear(scope["fc"], x, 3), 6)

    with pytest.raises(core.LeafError, match="params/fc/kernel is declared twice"):
        core.spec(twice, X)


def test_compute_dtype(variables, x):
    half = core.apply(stack, variables, x, dtype=jnp.bfloat16)
    assert half.value.dtype == jnp.bfloat16
    assert core.apply(stack, variables, x.astype(jnp.bfloat16)).value.dtype == jnp.bfloat16
    assert half.batch_stats["last"]["norm"]["mean"].dtype == jnp.float32
    stored = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    assert core.apply(stack, stored, x).value.dtype == jnp.float32
    np.testing.assert_allclose(half.value, core.apply(stack, variables, x).value, atol=0.1)


def test_frozen_batch_norm_in_training():
    @core.kernel
    def norm_and_drop(scope, x):
        return core.dropout(scope["drop"], core.batch_norm(scope["bn"], x), 0.5)

    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3)), jnp.float32)
    variables = core.init(norm_and_drop, jax.random.key(0), x)
    variables["batch_stats"]["bn"]["mean"] = jnp.ones(3)
    stored = variables["batch_stats"]
    expected = core.apply(norm_and_drop, variables, x).value
    frozen = core.apply(norm_and_drop, variables, x, training=True, use_running_average=True, rng=jax.random.key(1))
    chex.assert_trees_all_equal(frozen.batch_stats, stored)
    dropped = np.asarray(frozen.value == 0)
    assert 0.3 < dropped.mean() < 0.7
    np.testing.assert_allclose(frozen.value, np.where(dropped, 0, 2 * expected), rtol=1e-6)
    adapted = core.apply(norm_and_drop, variables, x, use_running_average=False)
    np.testing.assert_allclose(adapted.value.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(adapted.batch_stats["bn"]["mean"], 0.9 + 0.1 * x.mean(0), rtol=1e-5)


def test_modules_replace_kernels_at_their_paths(variables, x):
    found = core.apply(stack, variables, x, modules={"head": lambda x: x[:, :1], "last": lambda x: 2 * x})
    assert found.value.shape == (4, 1)
    del variables["params"]["head"], variables["params"]["last"], variables["batch_stats"]["last"]
    again = core.apply(stack, variables, x, modules={"head": lambda x: x[:, :1], "last": lambda x: 2 * x})
    np.testing.assert_array_equal(found.value, again.value)
    del variables["params"]["blocks"]["0"]
    with pytest.raises(core.LeafError) as error:
        core.apply(stack, variables, x, modules={"head": lambda x: x, "last": lambda x: x})
    assert all("blocks/0/" in line for line in str(error.value).splitlines())
    with pytest.raises(ValueError, match="to replace blocks, where no kernel runs"):
        core.apply(stack, variables, x, modules={"blocks": lambda x: x})
    with pytest.raises(ValueError, match="without scan"):
        core.apply(stack, variables, x, scan=True, modules={"blocks/0/fc": lambda x: x})


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["blocks"], r"to replace blocks, where no kernel .* one by one: blocks/0, blocks/1, blocks/2$"),
        (["blocks/0/fc1"], r"to replace blocks/0/fc1, where no kernel .*; the nearest kernel is blocks/0/fc$"),
        (
            ["haed", "blocks/3/fc", "head"],
            r"to replace blocks/3/fc.*\n.*to replace haed, .* kernel is head$",
        ),
    ],
)
def test_modules_where_no_kernel_runs(paths, message, variables, x):
    with pytest.raises(ValueError, match=message):
        core.apply(stack, variables, x, modules=dict.fromkeys(paths, jnp.sin))


def test_statistics_over_a_mapped_axis_are_the_batchs(variables, x):
    whole = core.apply(core.batch_norm, core.init(core.batch_norm, jax.random.key(0), X), x, training=True)
    each = jax.vmap(
        lambda x: core.apply(
            core.batch_norm, core.init(core.batch_norm, jax.random.key(0), X), x, training=True, axis_name="batch"
        ),
        axis_name="batch",
    )(x[:, None])
    np.testing.assert_allclose(each.value[:, 0], whole.value, rtol=1e-5, atol=1e-6)
    for name, value in whole.batch_stats.items():
        np.testing.assert_allclose(each.batch_stats[name][0], value, rtol=1e-5, atol=1e-6)


def test_shapes_runs_nothing():
    value, intermediates = core.shapes(stack, X, capture="block_*")
    assert value.shape == (4, 2)
    assert {name: leaf.shape for name, leaf in intermediates.items()} == {f"block_{i}": (4, 6) for i in (1, 2, 3)}


def test_flatten_and_unflatten_are_inverse(variables):
    chex.assert_trees_all_equal(core.unflatten(core.flatten(variables)), variables)
