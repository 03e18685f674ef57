"""Each kernel against torch's layer of the same name."""

import numpy as np
import pytest
import torch

import flaim_core as core
from tests import oracle
from tests.against_torch.modules import MODULES
from tests.core.layers.cases import LAYERS, MAP
from tests.numerics import relative_error
from tests.parity import variables_from


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_torchs(name):
    (layer, x, options), module = LAYERS[name], MODULES[name]
    oracle.randomise(module.eval())
    variables = variables_from(core.spec(layer, x, **options), oracle.state(module))
    found = layer(variables, x, **options)
    tensor = oracle.to_torch(np.asarray(x)) if x.ndim == 4 else torch.from_numpy(np.array(x))
    with torch.no_grad():
        expected = module(tensor)
    if expected.ndim == 4 and found.shape != tuple(expected.shape):
        expected = expected.permute(0, 2, 3, 1)
    assert relative_error(found, expected) < 2e-6


def test_batch_norm_trains_as_torchs():
    module = oracle.randomise(torch.nn.BatchNorm2d(8)).train()
    variables = variables_from(core.spec(core.batch_norm, MAP), oracle.state(module))
    output = core.apply(core.batch_norm, variables, MAP, training=True)
    expected = module(oracle.to_torch(np.asarray(MAP))).detach().permute(0, 2, 3, 1)
    assert relative_error(output.value, expected) < 2e-6
    assert relative_error(output.batch_stats["mean"], module.running_mean) < 1e-6
    assert relative_error(output.batch_stats["var"], module.running_var) < 1e-6


def test_global_response_norm_is_timms():
    module = oracle.timm.layers.grn.GlobalResponseNorm(8, channels_last=True)
    oracle.randomise(module)
    variables = variables_from(core.spec(core.global_response_norm, MAP), oracle.state(module))
    with torch.no_grad():
        expected = module(torch.from_numpy(np.array(MAP)))
    assert relative_error(core.global_response_norm(variables, MAP), expected) < 2e-6
