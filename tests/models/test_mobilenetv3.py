"""MobileNetV3 and PP-LCNet against timm: every kind of network, the wiring of all."""

import inspect

import jax
import pytest
import torch

from flaim import models
from flaim.models.mobilenetv3 import FAMILY
from tests import oracle
from tests.models.test_efficientnet import KINDS, our_wiring, timms_wiring
from tests.oracle import relative_error
from tests.parity import assert_parity, variables_from

# Each has other blocks or other options than those before it.
SIZES = {
    "mobilenetv3_small_050": 64,
    "mobilenetv3_rw": 64,
    "lcnet_035": 64,
    "tf_mobilenetv3_small_075": (75, 50),
    "tf_mobilenetv3_large_minimal_100": (75, 50),
}
OUR_ACTS = {"hardswish": jax.nn.hard_swish.__name__}


@pytest.mark.parametrize("name", SIZES)
def test_logits_are_timms(name):
    assert_parity(models.create(name, 5, input_size=SIZES[name]), oracle.create(name, num_classes=5))


def gate(block: torch.nn.Module) -> str | None:
    """The activation inside the squeeze-and-excitation of a block of timm's."""
    se = getattr(block, "se", None)
    return None if se is None or isinstance(se, torch.nn.Identity) else type(se.act1).__name__.lower()


def test_every_variants_blocks_are_wired_as_timms():
    for name, variant in FAMILY.variants.items():
        config = {"act": inspect.signature(FAMILY.fn).parameters["act"].default, **variant}
        reference, features = oracle.create_meta(name), variant["stem_features"]
        for stage, modules in zip(variant["stages"], reference.blocks, strict=True):
            blocks = [(stack, i) for stack in stage for i in range(stack.depth)]
            for (stack, i), module in zip(blocks, modules, strict=True):
                assert stack.block.__name__ in KINDS[type(module).__name__], name
                stride, same, skip, act, eps = timms_wiring(module)
                expected = stride, same, skip, OUR_ACTS.get(act, act), eps
                assert our_wiring(stack, i, config, features) == expected, (name, stack)
                features = stack.features
                options = {"act": config["act"], **stack.options_of(i)}
                if options.get("se_ratio"):
                    own = getattr(options["channel_attention"], "keywords", {}).get("inner_act", "relu") is None
                    assert OUR_ACTS.get(gate(module), gate(module)) == (options["act"].__name__ if own else "relu"), (
                        name
                    )


def test_stages_are_timms_feature_maps():
    for name in ("mobilenetv3_large_100", "mobilenetv3_small_100", "lcnet_050"):
        expected = [(f["num_chs"], f["reduction"]) for f in oracle.create_meta(name).feature_info if f["stage"] > 0]
        assert [(f.channels, f.reduction) for f in models.create(name, input_size=256).feature_info[1:]] == expected


def test_heads_are_timms():
    reference = oracle.create("mobilenetv3_small_050")
    model = models.create("mobilenetv3_small_050", input_size=64)
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(64)
    with torch.no_grad():
        features = reference.forward_features(oracle.to_torch(images))
        pooled = reference.forward_head(features, pre_logits=True)
    assert (
        relative_error(model.replace(n_classes=0).apply(variables, images).value, features.permute(0, 2, 3, 1)) < 1e-5
    )
    assert relative_error(model.replace(n_classes=-1).apply(variables, images).value, pooled) < 1e-5
