"""Is a maximum or sum of shifted views faster than XLA's reduce_window on this CPU, forward and backward?

`python -m benchmarks.ops.pooling`
"""

import jax
import jax.numpy as jnp

import flaim_core as core
from benchmarks.ops._turns import array, milliseconds, show

SIZES = {"3x3, stride 2, 112x112x64": (112, 64), "3x3, stride 2, 56x56x128": (56, 128)}


def _pool(mode: str, pool: str):
    def run(x):
        with core.lowering(mode):
            return getattr(core.ops, pool)(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    return run


if __name__ == "__main__":
    for pool in ("max_pool", "avg_pool"):
        ways = {"reduce_window": _pool("portable", pool), "shifted views": _pool("auto", pool)}
        gradients = {name: jax.grad(lambda x, way=way: jnp.cos(way(x)).sum()) for name, way in ways.items()}
        images = {case: array(8, size, size, channels) for case, (size, channels) in SIZES.items()}
        show(pool, {case: milliseconds(ways, x) for case, x in images.items()})
        show(f"{pool}, gradient", {case: milliseconds(gradients, x) for case, x in images.items()})
