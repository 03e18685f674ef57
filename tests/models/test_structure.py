"""Every architecture has exactly timm's leaves and shapes."""

import pytest

import flaim_core as core
from flaim import models
from tests import oracle
from tests.parity import BUFFERS, FROM_TORCH, torch_name


def _timm_name(architecture: str) -> bool:
    return oracle.timm.is_model(architecture)


ARCHITECTURES = [name for name in models.list_architectures() if _timm_name(name)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_leaves_are_timms(name):
    model, reference = models.create(name), oracle.create_meta(name)
    expected = {k: tuple(v.shape) for k, v in reference.state_dict().items() if not k.endswith(BUFFERS)}
    found = {}
    for path, leaf in core.flatten(model.spec()).items():
        axes = FROM_TORCH[leaf.layout]
        inverse = range(len(leaf.shape)) if axes is None else [axes.index(i) for i in range(len(axes))]
        found[torch_name(path)] = tuple(leaf.shape[i] for i in inverse)
    classifier = torch_name(f"params/{model.classifier}/kernel")
    if expected.get(classifier, ())[2:] == (1, 1):  # a 1x1 convolution in timm
        expected[classifier] = expected[classifier][:2]
    assert found == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_input_size_and_classes_are_timms(name):
    model, config = models.create(name), oracle.timm.get_pretrained_cfg(name)
    assert (model.in_channels, *model.input_size) == config.input_size
    assert model.n_classes in (config.num_classes, -1 if config.num_classes == 0 else config.num_classes)
