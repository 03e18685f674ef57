"""How strict the tests are, all of them: this is the only place where it is set.

- Every jaxtyping annotation of flaim is checked at run time. The import hook has to be there before flaim is imported.
- JAX promotes neither ranks nor dtypes. A test of code that is not ours, and relies on that, asks for `lenient`.
- Warnings are errors: `filterwarnings` in pyproject.toml, where pytest looks for it.
"""

import os

import jax
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 -- the hook refers to it by name

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
os.environ["KERAS_BACKEND"] = "jax"
# Optimised machine code takes longer to compile than it saves here.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
install_import_hook(["flaim", "flaim_core"], "tests.typechecker.check")

pytest_plugins = ["tests.seconds"]


@pytest.fixture
def lenient():
    """JAX's default promotion of ranks and dtypes, for oracles, users' scripts and layers of other libraries."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """A hub that can be uploaded to, with an empty cache."""
    from huggingface_hub import constants

    from tests import hub_server

    with hub_server.serve() as hub:
        hub.root = tmp_path / "hub"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub
