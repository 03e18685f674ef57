"""What keeps XLA on a CPU from fusing too much."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir


def isolate(function: Callable) -> Callable:
    """`function`, compiled by XLA apart from what surrounds it.

    XLA on a CPU fuses a sum of many shifted products with a norm that follows it, and in doing so cuts the sum into
    pieces that each write a whole image: a depthwise 7x7 convolution and a layer norm on 8 x 56x56x96 took 72 ms, each
    on its own 3.6 and 0.6 ms, isolated from one another 5.6 ms together. Optimisation barriers do not help; they are
    gone before fusion, and before equal computations are merged.
    """

    def inside(*args):
        with set_xla_metadata(inlineable=None):  # which holds for the functions that it calls too
            return function(*args)

    compiled = jax.jit(inside)

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


@functools.cache
def isolated(function: Callable, **options: Any) -> Callable:
    """`function` with `options`, isolated, and compiled once for all calls on equal shapes."""
    return isolate(functools.partial(function, **options))


def isolated_on_cpu(jaxpr: ClosedJaxpr) -> Callable[..., list]:
    """The function of flat inputs that `jaxpr` stands for, isolated on a CPU; elsewhere XLA may fuse it as it likes.

    One with effects, sums over devices among them, is not isolated.
    """
    return jaxpr_as_fun(jaxpr) if jaxpr.effects else functools.partial(_isolated.bind, jaxpr=jaxpr)


# A jaxpr, called. `jax.lax.platform_dependent` would do, but traces it once for each platform: a fifth of the time that
# tracing a training step takes.
_isolated = Primitive("isolated")
_isolated.multiple_results = True


@_isolated.def_impl
def _evaluate(*inputs, jaxpr):
    return jaxpr_as_fun(jaxpr)(*inputs)


@_isolated.def_abstract_eval
def _abstract(*inputs, jaxpr):
    return jaxpr.out_avals


def _jvp(primals, tangents, *, jaxpr):
    return jax.jvp(jaxpr_as_fun(jaxpr), tuple(primals), (*map(ad.instantiate_zeros, tangents),))


def _transpose(cotangents, *inputs, jaxpr):
    moving = [i for i, x in enumerate(inputs) if ad.is_undefined_primal(x)]

    def function(*tangents):
        mixed = dict(zip(moving, tangents))
        return jaxpr_as_fun(jaxpr)(*(mixed.get(i, x) for i, x in enumerate(inputs)))

    found = jax.linear_transpose(function, *(inputs[i].aval for i in moving))([*map(ad.instantiate_zeros, cotangents)])
    return [dict(zip(moving, found)).get(i) for i in range(len(inputs))]


def _batch(axis, inputs, dims, *, jaxpr):
    mapped = jax.vmap(jaxpr_as_fun(jaxpr), tuple(dims), axis_name=axis.name, axis_size=axis.size)
    outputs = isolated_on_cpu(jax.make_jaxpr(mapped)(*inputs))(*inputs)
    return outputs, [0] * len(outputs)


ad.primitive_jvps[_isolated] = _jvp
ad.primitive_transposes[_isolated] = _transpose
batching.fancy_primitive_batchers[_isolated] = _batch
mlir.register_lowering(_isolated, mlir.lower_fun(_evaluate, multiple_results=True))
mlir.register_lowering(
    _isolated,
    mlir.lower_fun(lambda *inputs, jaxpr: isolate(jaxpr_as_fun(jaxpr))(*inputs), multiple_results=True),
    platform="cpu",
)
