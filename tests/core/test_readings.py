"""The readings `spec`, `init`, `shapes` and `apply`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from tests.core.residual import X, residual


def test_spec_declares_each_leaf_once_with_its_path():
    leaves = core.flatten(core.spec(residual, X))
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
    first, again = (core.init(residual, jax.random.key(0), X) for _ in range(2))
    chex.assert_trees_all_equal(first, again)
    deeper = core.init(residual, jax.random.key(0), X, depth=4)
    chex.assert_trees_all_equal(first["params"]["blocks"]["1"], deeper["params"]["blocks"]["1"])
    kernels = [first["params"]["blocks"][i]["fc"]["kernel"] for i in "012"]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])
    other = core.init(residual, jax.random.key(1), X)
    assert not np.allclose(other["params"]["head"]["kernel"], first["params"]["head"]["kernel"])
    chex.assert_trees_all_equal(first, jax.jit(lambda key: core.init(residual, key, X))(jax.random.key(0)))


def test_training_returns_every_statistic(variables, x):
    output = core.apply(residual, variables, x, training=True, rng=jax.random.key(0))
    chex.assert_trees_all_equal_shapes(output.batch_stats, variables["batch_stats"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), output.batch_stats, variables["batch_stats"])
    assert all(jax.tree.leaves(moved))
    still = core.apply(residual, variables, x).batch_stats
    chex.assert_trees_all_equal(still, variables["batch_stats"])


def test_leaf_errors_list_everything(variables, x):
    variables["params"]["head"]["kernel"] = jnp.zeros((1,))
    del variables["params"]["blocks"]["1"]["fc"]["bias"], variables["batch_stats"]["last"]
    with pytest.raises(core.LeafError) as error:
        core.apply(residual, variables, x)
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
    found = core.apply(residual, variables, x, modules={"head": lambda x: x[:, :1], "last": lambda x: 2 * x})
    assert found.value.shape == (4, 1)
    del variables["params"]["head"], variables["params"]["last"], variables["batch_stats"]["last"]
    again = core.apply(residual, variables, x, modules={"head": lambda x: x[:, :1], "last": lambda x: 2 * x})
    np.testing.assert_array_equal(found.value, again.value)
    del variables["params"]["blocks"]["0"]
    with pytest.raises(core.LeafError) as error:
        core.apply(residual, variables, x, modules={"head": lambda x: x, "last": lambda x: x})
    assert all("blocks/0/" in line for line in str(error.value).splitlines())
    with pytest.raises(ValueError, match="to replace blocks, where no kernel runs"):
        core.apply(residual, variables, x, modules={"blocks": lambda x: x})
    with pytest.raises(ValueError, match="without scan"):
        core.apply(residual, variables, x, scan=True, modules={"blocks/0/fc": lambda x: x})


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
        core.apply(residual, variables, x, modules=dict.fromkeys(paths, jnp.sin))


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
    value, intermediates = core.shapes(residual, X, capture="block_*")
    assert value.shape == (4, 2)
    assert {name: leaf.shape for name, leaf in intermediates.items()} == {f"block_{i}": (4, 6) for i in (1, 2, 3)}
