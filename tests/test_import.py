"""What a user has after `import flaim`."""

import subprocess
import sys

import pytest

import flaim


def run(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_submodules_are_there():
    names = (
        "adapters.linen.layers.MBConv, checkpoints.DIGITS, data.Preprocess, export.to_onnx, models.create, weights.load"
    )
    for name in names.split(", "):
        assert run(f"import flaim; print(flaim.{name})")


def test_importing_it_imports_no_jax():
    code = (
        "import sys, flaim; flaim.checkpoints.DIGITS; print([m for m in ('jax', 'numpy', 'flax') if m in sys.modules])"
    )
    assert run(code) == "[]\n"


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="module 'flaim' has no attribute 'torch'"):
        _ = flaim.torch
    with pytest.raises(AttributeError, match=r"module 'flaim\.adapters' has no attribute 'torch'"):
        _ = flaim.adapters.torch
    assert {"adapters", "get_model", "models"} <= set(dir(flaim)) and "nnx" in dir(flaim.adapters)
