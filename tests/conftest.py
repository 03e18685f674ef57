"""Run-time checks of every jaxtyping annotation, before anything of flaim is imported; JAX at its strictest.

Neither ranks nor dtypes are promoted anywhere. `tests.numerics.lenient` is for oracles on JAX, which rely on it.
"""

import os

import jax
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 -- the hook names it and expects it to be there

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
os.environ["KERAS_BACKEND"] = "jax"
# Numbers do not need optimised machine code, which takes longer to compile than it saves here.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
install_import_hook(["flaim", "flaim_core"], "tests.typechecker.check")


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
