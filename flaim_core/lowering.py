"""Who will run this program: the one decision between our own primitives and plain `jax.numpy` and `jax.lax`.

flaim's primitives make a CPU fast, and JAX knows nothing of them: not how to shard them, nor how to export them. So
they are used only where a CPU runs the program by itself, and everything else gets public operations:

    with flaim_core.lowering("portable"):
        exported = jax.export.export(jax.jit(run))(variables, images)

The mode is part of what `jax.jit` caches by. It holds where a function is traced, not where it is called later.
"""

import contextlib
from typing import Any, Literal, get_args

import jax

from flaim_core import _jax

Mode = Literal["auto", "portable"]

_NOBODY = "nobody"
_mode = jax.make_user_context("auto")


def lowering(mode: str) -> contextlib.AbstractContextManager:
    """A context in which functions are traced with flaim's own primitives where they serve, or without any.

    Args:
        mode: `"auto"`: a CPU that runs the program by itself gets flaim's primitives; `"portable"`: public JAX
            operations alone, whatever runs them.
    """
    return _mode(_checked(mode))


def set_lowering(mode: str) -> None:
    """Set the mode of `lowering` for the whole process, where no context says otherwise."""
    _mode.set_global(_checked(mode))


def _checked(mode: str) -> str:
    if mode not in get_args(Mode):
        raise ValueError(f"lowering is {' or '.join(map(repr, get_args(Mode)))}, not {mode!r}")
    return mode


def shapes_alone() -> contextlib.AbstractContextManager:
    """A context in which functions are traced for nobody: of what they return only shapes and dtypes count."""
    return _mode(_NOBODY)


def for_nobody() -> bool:
    """Whether only the shapes count of what is being traced, so that zeros may stand in for a product."""
    return _mode.value == _NOBODY


def for_cpu_alone(*operands: Any) -> bool:
    """Whether an operation on these arrays (concrete or traced) will be run by a CPU by itself.

    It is not where the default backend is another one, where several devices may share the work (a mesh, a `shard_map`,
    more than one CPU device), where a size is symbolic, where somebody intercepts lax's products (qwix does), or where
    `lowering("portable")` holds.
    """
    return (
        _mode.value == "auto"
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1
        and jax.sharding.get_abstract_mesh().empty
        and not is_intercepted()
        and all(map(_is_plain, operands))
    )


def is_being_compiled(*operands: Any) -> bool:
    """Whether one of these arrays is a value of a function that is being compiled, perhaps under other transforms."""
    return any(map(_jax.is_compiled, operands))


def is_intercepted() -> bool:
    """Whether somebody intercepts lax's products: who wants to see them sees convolutions as convolutions."""
    return _jax.products_are_intercepted()


def for_gpu() -> bool:
    """Whether the program is traced for a GPU, whose fused operations may stand in."""
    return _mode.value == "auto" and jax.default_backend() == "gpu"


def _is_plain(x: Any) -> bool:
    """Whether all sizes of an array are known, and no mesh has it."""
    aval = jax.typeof(x)
    return all(isinstance(n, int) for n in aval.shape) and aval.sharding.mesh.empty
