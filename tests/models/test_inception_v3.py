"""Inception V3 against timm."""

import jax
import numpy as np
import torch

from flaim import models
from tests import oracle
from tests.oracle import relative_error
from tests.parity import variables_from


def test_logits_heads_and_stages_are_timms():
    reference = oracle.create("inception_v3")
    model = models.create("inception_v3", input_size=(91, 80))
    variables, images = variables_from(model.spec(), oracle.state(reference)), oracle.image(model.input_size)
    with torch.no_grad():
        tensor = oracle.to_torch(images)
        features, stages = reference.forward_intermediates(tensor)
        pooled = reference.forward_head(features, pre_logits=True)
    output = jax.jit(lambda v, x: model.replace(n_classes=0).apply(v, x, capture="stage_*"))(variables, images)
    assert relative_error(output.value, features.permute(0, 2, 3, 1)) < 1e-5
    for i, expected in enumerate(stages):
        assert relative_error(output.intermediates[f"stage_{i}"], np.moveaxis(expected.numpy(), 1, -1)) < 1e-5
    run = jax.jit(lambda v, x: model.apply(v, x).value)
    assert relative_error(run(variables, images), oracle.run(reference, images)) < 1e-5
    assert relative_error(output.value.mean((1, 2)), pooled) < 1e-5
    assert [f.channels for f in model.feature_info] == [stage.shape[1] for stage in stages]
