import pytest

from tests.weights.saving.letters import make


@pytest.fixture(scope="module")
def old():
    return make(0)


@pytest.fixture(scope="module")
def new():
    return make(1, n_classes=5)
