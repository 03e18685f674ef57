"""A small residual model with everything that a reading handles: batch norm, dropout, captures, a stack of blocks."""

import jax
import jax.numpy as jnp

import flaim_core as core

X = jax.ShapeDtypeStruct((4, 6), jnp.float32)


@core.kernel
def block(scope, x, *, drop_path_rate=0.0):
    y = core.batch_norm(scope["norm"], core.linear(scope["fc"], x, x.shape[-1]))
    scope.capture("hidden", y)
    return x + core.drop_path(scope["drop_path"], core.dropout(scope["drop"], jax.nn.relu(y), 0.3), drop_path_rate)


@core.kernel
def residual(scope, x, *, depth=3):
    rates = [0.1 * i for i in range(depth)]
    x = scope["blocks"].repeat(
        block,
        x,
        depth,
        each={"drop_path_rate": rates},
        after=lambda i, x: scope.capture(f"block_{i + 1}", x),
    )
    x = scope["last"].call(block, x)
    return core.classifier(scope["head"], x, 2)
