"""One thin adapter per framework: it holds the leaves, calls the pure function, and stores the updates.

`linen`, `nnx`, `eqx` and `haiku` each have `get_model`, `wrap` (from a framework-free model and its variables),
`to_variables` (back to canonical variables) and `layers` (each kernel as a module of that framework).
"""

from typing import TYPE_CHECKING

from flaim._lazy import lazy

if TYPE_CHECKING:
    from flaim.adapters import eqx, haiku, linen, nnx

__all__ = ["eqx", "haiku", "linen", "nnx"]

# Each brings its framework, so it is imported on first use.
__getattr__, __dir__ = lazy(__name__, dict.fromkeys(__all__, __name__))
