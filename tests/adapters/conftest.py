"""A user's own model, small, with everything that an adapter has to carry: statistics, dropping, captures, a stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaim_core as core
from flaim.models import Model


@core.kernel
def block(scope, x, *, drop_path_rate=0.0):
    y = core.conv(scope["conv1"], x, x.shape[-1], kernel_size=3, bias=False)
    y = jax.nn.relu(core.batch_norm(scope["bn1"], y))
    return x + core.drop_path(scope["drop_path"], y, drop_path_rate)


@core.kernel
def tiny(scope, x, *, n_classes, depth=2, drop_rate=0.2):
    x = core.conv(scope["stem"], x, 8, kernel_size=2, stride=2, padding=0)
    x = x + core.ops.per_channel(scope.param("offset", (8,), core.initializers.zeros), x)
    scope.capture("stage_0", x)
    rates = {"drop_path_rate": [0.1 * i for i in range(depth)]}
    x = scope["layer1"].repeat(block, x, depth, each=rates)
    scope.capture("stage_1", x)
    if n_classes == 0:
        return x
    return core.classifier(scope["head"]["fc"], core.ops.global_avg_pool(x), n_classes, drop_rate=drop_rate)


@pytest.fixture(scope="session")
def model():
    return Model("tiny", tiny, classifier="head/fc", input_size=(8, 8), n_classes=5)


@pytest.fixture(scope="session")
def variables(model):
    initial = core.flatten(model.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    return core.unflatten(
        {path: leaf + jnp.asarray(0.1 * rng.random(leaf.shape), leaf.dtype) for path, leaf in initial.items()}
    )


@pytest.fixture(scope="session")
def images():
    return jnp.asarray(np.random.default_rng(1).standard_normal((4, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="session")
def labels():
    return jnp.arange(4) % 5


@pytest.fixture(scope="session")
def expected(model, variables, images):
    """The framework-free model's logits."""
    return jax.jit(lambda v, x: model.apply(v, x).value)(variables, images)


@pytest.fixture(scope="session")
def expected_training(model, variables, images):
    """The framework-free model's output in training, with the key 7."""
    train = jax.jit(lambda v, x, key: model.apply(v, x, training=True, rng=key))
    return train(variables, images, jax.random.key(7))


@pytest.fixture(scope="session")
def expected_frozen(model, variables, images):
    """The framework-free model's logits in training with frozen batch norm, with the key 7."""
    train = jax.jit(lambda v, x, key: model.apply(v, x, training=True, use_running_average=True, rng=key).value)
    return train(variables, images, jax.random.key(7))


@pytest.fixture(scope="session")
def expected_intermediates(model, variables, images):
    """The framework-free model's intermediates."""
    return jax.jit(lambda v, x: model.apply(v, x, capture="*").intermediates)(variables, images)
