"""Attention: where cuDNN's is used."""

import functools

import jax
import pytest

from flaim_core import ops


@pytest.mark.parametrize(
    "dtype, width, bias, fused",
    [
        ("bfloat16", 64, False, True),
        ("float16", 32, False, True),
        ("float32", 64, False, False),  # cuDNN has none
        ("bfloat16", 160, False, False),
        ("bfloat16", 20, False, False),
        ("bfloat16", 64, True, False),
    ],
)
def test_attention_is_cudnns_within_its_limits(dtype, width, bias, fused, monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    from flaim_core.ops import _attention

    # What a machine with a GPU says of itself: jax asks before it traces.
    monkeypatch.setattr(_attention, "for_gpu", lambda: True)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 90800)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    tokens = jax.ShapeDtypeStruct((2, 3, 17, 4, width), dtype)
    biases = [jax.ShapeDtypeStruct((4, 17, 17), dtype)] if bias else []
    attend = jax.jit(lambda *args: ops.dot_product_attention(*args))
    export = functools.partial(
        jax.export.export, attend, disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("__cudnn$fmhaSoftmax")]
    )
    for platform in ("cuda", "cpu"):
        text = export(platforms=[platform])(tokens, tokens, tokens, *biases).mlir_module()
        assert ("__cudnn$fmha" in text) == (fused and platform == "cuda")
