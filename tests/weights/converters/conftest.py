"""Oracles and users' scripts on JAX, which promote ranks and dtypes."""

import pytest

from tests.numerics import lenient


@pytest.fixture(autouse=True)
def others_promote():
    """JAX's default promotion, for code that is not ours."""
    with lenient():
        yield
