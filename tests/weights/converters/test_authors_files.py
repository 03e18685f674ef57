"""Files as authors publish them, of models that timm does not have: loaded by path, the outputs are the reference's."""

import pytest
import torch

import flaim.models
import flaim.options
from tests import oracle, parity
from tests.oracle import timm


@pytest.mark.parametrize(
    "form, name, args, options",
    [
        # MAE fine-tuned: the mean of the patches, then the last norm.
        (
            {"global_pool": "avg", "embed_dim": 32, "depth": 1, "num_heads": 2},
            "vit_base_patch16_224",
            {"dim": 32, "depth": 1, "num_heads": 2},
            {"pool": {"function": "average_pool"}},
        ),
        # ResNeXt-101 32x48d, weakly supervised; torchvision's names.
        (
            {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)},
            "resnext101_32x48d",
            {"depths": (1, 1, 1, 1), "widths": (8, 8, 8, 8)},
            {},
        ),
    ],
    ids=["MAE", "WSL"],
)
def test_files_of_authors_by_path(form, name, args, options, tmp_path):
    """As they are published: what `torch.save` writes of a training script's state."""
    if name.startswith("vit"):
        reference = oracle.create(name, num_classes=9, **form)
        content = {"model": reference.state_dict(), "epoch": 100, "optimizer": {"state": {}}}
    else:
        resnet = timm.models.resnet
        reference = resnet.ResNet(resnet.Bottleneck, cardinality=32, base_width=48, num_classes=9, **form).eval()
        content = oracle.randomise(reference).state_dict()
    torch.save(content, tmp_path / "published.pth")
    overrides = flaim.options.options_from(options, flaim.models.family_of(name))
    model, variables, _ = flaim.models.get_model(name, tmp_path / "published.pth", **args, **overrides)
    assert model.n_classes == 9
    parity.assert_same_output(model, variables, reference)
