"""JAX's search for leaked tracers."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def checking_leaks() -> Iterator[None]:
    """`jax.checking_leaks`, which collects garbage at every trace: here only among what is made meanwhile."""
    gc.collect()
    gc.freeze()
    try:
        with jax.checking_leaks():
            yield
    finally:
        gc.unfreeze()
