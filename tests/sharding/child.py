"""What needs four devices: run as `python -m tests.sharding.child FAMILY ...`, a line of JSON a check.

A process has as many CPU devices as it was started with, and the tests' own has one.
"""

import json
import os
import sys
import traceback

if __name__ == "__main__":  # before jax starts; numbers do not need optimised code
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=4 "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flaim import models
from tests.sharding.adapters import check_eqx, check_haiku, check_linen, check_nnx
from tests.sharding.cases import BATCH, DEVICES, THOROUGH, assert_same, case, first_axis, mapped, put, run
from tests.small import UNLIKE, small


def assert_divided(function: Callable, inputs: tuple, compiled: Any) -> None:
    """Each device computes its part of the batch, as one by itself would do it, and nothing of the others'."""
    variables, *others = jax.tree.map(np.asarray, inputs)
    alone = jax.jit(function).lower(variables, *(x[: BATCH // DEVICES] for x in others)).compile()
    flops, part = (program.cost_analysis()["flops"] for program in (compiled, alone))
    assert flops <= 1.1 * part, f"{flops:.3g} operations on each of 4 devices, where its part takes {part:.3g}"


def assert_inference_divides(model: models.Model, inputs: tuple) -> None:
    """Inference is divided, and no activation leaves its device."""

    def infer(variables, x):
        return model.apply(variables, x).value

    compiled = jax.jit(infer).lower(*inputs[:2]).compile()
    moved = [line.strip()[:200] for line in compiled.as_text().splitlines() if moves_arrays(line)]
    assert not moved, "arrays move between devices:\n" + "\n".join(moved)
    assert_divided(infer, inputs[:2], compiled)


def moves_arrays(line: str) -> bool:
    return any(
        f" {name}(" in line or f" {name}-start(" in line for name in ("all-gather", "all-to-all", "collective-permute")
    )


# The checks. Each is a function of a family's name.


def check_explicit_mesh(family: str) -> None:
    model, inputs, expected = case(family)
    mesh = jax.make_mesh((DEVICES,), ("data",))  # Explicit
    inputs = put(inputs, mesh, P("data"))
    typed = []

    def step(*inputs):
        found = run(model)(*inputs)
        typed.append(first_axis(jax.typeof(found[0]).sharding))
        return found

    compiled = jax.jit(step).lower(*inputs).compile()
    found = compiled(*inputs)
    assert typed == ["data"] and first_axis(jax.typeof(found[0]).sharding) == "data", typed
    with jax.set_mesh(mesh):
        aval = jax.eval_shape(lambda *inputs: run(model)(*inputs)[0], *inputs)
        assert first_axis(aval.sharding) == "data", aval.sharding
    assert_same(found, expected)
    assert_inference_divides(model, inputs)
    if family in THOROUGH:
        assert_divided(run(model), inputs, compiled)


def check_shard_map(family: str) -> None:
    model, inputs, expected = case(family)
    assert_same(mapped(run(model, axis="data"))(*inputs), expected)


def check_shard_map_without_vma(family: str) -> None:
    """Without the check JAX does not know that parameters are replicated: their gradients are each device's own."""
    model, inputs, expected = case(family)

    def step(*inputs):
        logits, (value, gradients) = run(model, axis="data")(*inputs)
        return logits, (value, jax.lax.pmean(gradients, "data"))

    assert_same(mapped(step, check_vma=False)(*inputs), expected)


def check_shard_map_of_varying_parameters(family: str) -> None:
    """Parameters that were made to vary have gradients that do: the mean loss's are their sum."""
    model, inputs, expected = case(family)

    def step(variables, *others):
        params = jax.lax.pcast(variables["params"], "data", to="varying")
        logits, (value, gradients) = run(model, axis="data")({**variables, "params": params}, *others)
        return logits, (value, jax.lax.psum(gradients, "data"))

    assert_same(mapped(step)(*inputs), expected)


def check_scan_and_remat(family: str) -> None:
    """Under `shard_map` and on an Explicit mesh, one compilation each."""
    model, inputs, expected = case(family)
    mesh = jax.make_mesh((DEVICES,), ("data",))
    assert_same(mapped(run(model.replace(scan=True, remat=True), axis="data"))(*inputs), expected)
    found = jax.jit(run(model.replace(scan=True)))(*put(inputs, mesh, P("data")))
    assert first_axis(jax.typeof(found[0]).sharding) == "data"
    assert_same(found, expected)
    jax.eval_shape(run(model.replace(remat=True)), *put(inputs, mesh, P("data")))


def by_largest_axis(axis: str, size: int) -> Callable[[np.ndarray], P]:
    """Leaves sharded along the largest of their axes that divides, as fully sharded data parallelism does."""

    def spec(leaf: np.ndarray) -> P:
        axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
        if not axes:
            return P()
        largest = max(axes, key=lambda i: leaf.shape[i])
        return P(*(axis if i == largest else None for i in range(leaf.ndim)))

    return spec


def check_auto_mesh(family: str) -> None:
    model, inputs, expected = case(family)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    inputs = put(inputs, mesh, P("data"))
    compiled = jax.jit(run(model)).lower(*inputs).compile()
    found = compiled(*inputs)
    assert first_axis(found[0].sharding) == "data", found[0].sharding
    assert_same(found, expected)
    assert_inference_divides(model, inputs)
    assert_divided(run(model), inputs, compiled)


def check_fsdp_on_the_batch_axis(family: str) -> None:
    """One axis for both, as JAX has it done: parameters are gathered where they are used, and only they."""
    model, inputs, expected = case(family)
    mesh = jax.make_mesh((DEVICES,), ("data",))
    variables, x, _ = put(inputs, mesh, P("data"), by_largest_axis("data", DEVICES))
    logits = jax.jit(lambda v, x: model.apply(jax.reshard(v, NamedSharding(mesh, P())), x).value)(variables, x)
    assert first_axis(jax.typeof(logits).sharding) == "data"
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-5 * np.abs(expected[0]).max())


def check_fsdp_on_its_own_axis(family: str) -> None:
    model, inputs, expected = case(family)
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    found = jax.jit(run(model))(*put(inputs, mesh, P("data"), by_largest_axis("fsdp", 2)))
    assert first_axis(found[0].sharding) == "data", found[0].sharding
    assert_same(found, expected)


# Kinds of layers that no small model has: traced alone.

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention pooling": ("vit_base_patch16_siglip_224", dict(dim=32, depth=1, num_heads=2, input_size=32)),
    "registers": ("vit_small_patch14_reg4_dinov2", dict(dim=32, depth=1, num_heads=2, input_size=28)),
    "distillation token": ("deit_tiny_distilled_patch16_224", dict(dim=32, depth=1, num_heads=2, input_size=32)),
    "gated hidden layers": ("beit3_base_patch16_224", dict(dim=32, depth=1, num_heads=2, input_size=32)),
    "group norm": ("test_efficientnet_gn", dict(input_size=32)),
    "EvoNorm": ("resnetv2_50d_evos", dict(input_size=32, depths=(1,))),
    "channel attention": ("ecaresnet26t", dict(input_size=32, depths=(1,))),
    "blur pooling": ("resnetblur18", dict(input_size=32, depths=(1, 1))),
    "convolutional attention": ("test_coatnet", dict(input_size=64)),
    "position bias by a network": ("maxvit_rmlp_pico_rw_256", dict(input_size=64, depths=(1,), dims=(32,))),
    "conditional convolutions": (
        "efficientnet_cc_b0_4e",
        dict(input_size=32),
    ),
    "mixed convolutions": ("mixnet_s", dict(input_size=32)),
}


def check_kind(kind: str) -> None:
    """A kind of layer, in a small model."""
    name, options = KINDS[kind]
    model = models.create(name, n_classes=7, **options)
    if "stages" in (config := dict(model.config)):
        stages = config["stages"]
        model = models.create(name, n_classes=7, **options, stages=stages[:1] + stages[-2:])
    assert_traced(model)


def check_traced(family: str) -> None:
    """A family's small model."""
    assert_traced(small(family))


def assert_traced(model: models.Model) -> None:
    """Inference and a training step are programs on an Explicit mesh and under `shard_map`, batches divided."""
    mesh = jax.make_mesh((DEVICES,), ("data",))

    def on(mesh, shape, spec):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=NamedSharding(mesh, spec))

    variables = jax.eval_shape(model.init, jax.random.key(0))
    batch = model.image(BATCH), jax.ShapeDtypeStruct((BATCH, 7), jnp.float32)
    sharded = jax.tree.map(lambda x: on(mesh, x, P()), variables), *(on(mesh, x, P("data")) for x in batch)
    logits, _ = jax.eval_shape(run(model), *sharded)
    assert first_axis(logits.sharding) == "data", logits.sharding
    jax.eval_shape(mapped(run(model, axis="data")), variables, *batch)


FOR_SOME = (check_explicit_mesh, check_shard_map)
FOR_FEW = (
    check_fsdp_on_its_own_axis,
    check_auto_mesh,
    check_fsdp_on_the_batch_axis,
    check_shard_map_without_vma,
    check_shard_map_of_varying_parameters,
    check_scan_and_remat,
    check_linen,
    check_nnx,
    check_eqx,
    check_haiku,
)


def main(*names: str) -> None:
    """Run the checks of families, or of kinds of layers, and say of each what it raised."""
    jax.config.update("jax_enable_x64", True)
    for name in names:
        checks = (check_kind,) if name in KINDS else (check_traced,)
        checks += (FOR_SOME if name in UNLIKE else ()) + (FOR_FEW if name in THOROUGH else ())
        for check in checks:
            try:
                check(name)
                error = None
            except Exception:
                error = traceback.format_exc()
            print(json.dumps({"check": check.__name__, "of": name, "error": error}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
