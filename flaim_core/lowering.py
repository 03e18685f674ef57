"""Which operations a program is traced to: flaim's own primitives, or public JAX operations.

flaim's primitives are fast on a CPU, but JAX cannot shard them, and exporters such as jax2onnx do not know them. So
they are used only in programs for a single CPU device. All other programs get public operations, and so do those under

    with flaim_core.lowering("portable"):
        exported = jax.export.export(jax.jit(run))(variables, images)

The mode is part of `jax.jit`'s cache key. It takes effect when a function is traced, not when the result is called.
"""

import contextlib
from typing import Any, Literal, get_args

import jax

from flaim_core import _jax

Mode = Literal["auto", "portable"]

_ABSTRACT = "abstract"
_mode = jax.make_user_context("auto")


def lowering(mode: str) -> contextlib.AbstractContextManager:
    """A context manager that sets the lowering of the functions traced in it.

    Args:
        mode: `"auto"`: flaim's primitives in programs for a single CPU device, public JAX operations in all others.
            `"portable"`: public JAX operations always.
    """
    return _mode(_checked(mode))


def set_lowering(mode: str) -> None:
    """Set the mode of the whole process, which `lowering` overrides."""
    _mode.set_global(_checked(mode))


def _checked(mode: str) -> str:
    if mode not in get_args(Mode):
        raise ValueError(f"lowering is {' or '.join(map(repr, get_args(Mode)))}, not {mode!r}")
    return mode


def abstract_evaluation() -> contextlib.AbstractContextManager:
    """A context manager for tracing that wants shapes and dtypes only, and throws the program away."""
    return _mode(_ABSTRACT)


def is_abstract_evaluation() -> bool:
    """Whether `abstract_evaluation` holds. Operations may then return zeros of the right shape, which trace faster."""
    return _mode.value == _ABSTRACT


def for_single_cpu(*operands: Any) -> bool:
    """Whether a single CPU device will run an operation on these arrays (concrete or traced), under mode `"auto"`.

    False if the default backend is not the CPU, if several devices may take part (a mesh, `shard_map`, more than one
    CPU device), if a size is symbolic, or if another library patches `lax` (see `lax_is_patched`).
    """
    return (
        _mode.value == "auto"
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1
        and jax.sharding.get_abstract_mesh().empty
        and not lax_is_patched()
        and all(map(_is_plain, operands))
    )


def is_under_jit(*operands: Any) -> bool:
    """Whether one of these arrays is traced by `jax.jit`, directly or inside other transformations."""
    return any(map(_jax.is_under_jit, operands))


def lax_is_patched() -> bool:
    """Whether another library has replaced `lax.dot_general` or `lax.conv_general_dilated`, as qwix does to quantise.

    flaim then calls these functions for every matrix product and convolution, so that the library finds them all.
    """
    return _jax.lax_is_patched()


def for_gpu() -> bool:
    """Whether a GPU will run the program, under mode `"auto"`; fused operations for GPUs may then be used."""
    return _mode.value == "auto" and jax.default_backend() == "gpu"


def _is_plain(x: Any) -> bool:
    """Whether all sizes of an array are known, and it is not on a mesh."""
    aval = jax.typeof(x)
    return all(isinstance(n, int) for n in aval.shape) and aval.sharding.mesh.empty
