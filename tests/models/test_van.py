"""VAN against a module written from the paper's formulas, and its leaves against those of the authors' code."""

import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import flaim
import flaim.weights
import flaim_core as core
from flaim import models
from tests import oracle
from tests.against_torch.modules import LargeKernelAttention
from tests.oracle import relative_error
from tests.parity import BUFFERS, FROM_TORCH, assert_gradient_parity, assert_parity, torch_name, variables_from

STRUCTURE = json.loads(
    (Path(__file__).parents[1] / "data" / "van_structure.json").read_text()
)  # by the tool of its name
SMALL = {"depths": (1, 2, 1, 1), "dims": (16, 24, 32, 40), "mlp_ratios": (4, 3, 2, 2)}
TWO_STAGES = {"depths": (1, 1), "dims": (16, 24), "mlp_ratios": (4, 3)}


class Reference(nn.Module):
    """Guo et al. (2022), section 3, with the names of the authors' modules. Maps are channels-first."""

    def __init__(self, depths, dims, mlp_ratios=(8, 8, 4, 4), n_classes=1000):
        super().__init__()
        self.stages = range(1, len(depths) + 1)
        for stage, width, dim, depth, ratio in zip(self.stages, (3, *dims), dims, depths, mlp_ratios):
            size, stride = (7, 4) if stage == 1 else (3, 2)
            embed = nn.ModuleDict({"proj": nn.Conv2d(width, dim, size, stride, size // 2), "norm": nn.BatchNorm2d(dim)})
            blocks = nn.Sequential(*(Block(dim, dim * ratio) for _ in range(depth)))
            parts = {"patch_embed": embed, "block": blocks, "norm": nn.LayerNorm(dim, eps=1e-6)}
            for name, part in parts.items():
                self.add_module(f"{name}{stage}", part)
        self.head = nn.Linear(dims[-1], n_classes)

    def maps(self, x):
        """The stem's map and the normalised ones of all stages."""
        found = []
        for stage in self.stages:
            embed, blocks, norm = (getattr(self, f"{name}{stage}") for name in ("patch_embed", "block", "norm"))
            x = embed["norm"](embed["proj"](x))
            found += [x] if stage == 1 else []
            x = norm(blocks(x).movedim(1, -1)).movedim(-1, 1)
            found.append(x)
        return found

    def forward(self, x):
        return self.head(self.maps(x)[-1].mean((2, 3)))


class Block(nn.Module):
    """Attention, section 3.1, and a convolutional feed-forward network, section 3.2."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)
        convolution, self.act = partial(nn.Conv2d, kernel_size=1), nn.GELU()
        gate = LargeKernelAttention(dim)
        attention = {"proj_1": convolution(dim, dim), "spatial_gating_unit": gate, "proj_2": convolution(dim, dim)}
        self.attn = nn.ModuleDict(attention)
        depthwise = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)})
        self.mlp = nn.ModuleDict(
            {"fc1": convolution(dim, hidden), "dwconv": depthwise, "fc2": convolution(hidden, dim)}
        )
        self.layer_scale_1, self.layer_scale_2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x):
        y = self.norm1(x)
        attn, mlp = self.attn, self.mlp
        y = y + attn["proj_2"](attn["spatial_gating_unit"](self.act(attn["proj_1"](y))))
        x = x + self.layer_scale_1[:, None, None] * y
        y = mlp["fc2"](self.act(mlp["dwconv"]["dwconv"](mlp["fc1"](self.norm2(x)))))
        return x + self.layer_scale_2[:, None, None] * y


def reference(seed: int = 0, **options) -> nn.Module:
    """A reference without initial values, whose statistics are those of its activations."""
    module = oracle.randomise(Reference(**{**SMALL, **options}), seed)
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of all batches
        norm.reset_running_stats()
    with torch.no_grad():
        module(oracle.to_torch(oracle.image(96, batch=4, seed=1)))
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def assert_image_matters(model, variables):
    first, second = jax.jit(lambda v, x: model.apply(v, x).value)(variables, oracle.image(model.input_size))
    assert jnp.abs(first - second).max() > 1e-2 * jnp.abs(first).max()


@pytest.mark.parametrize("name", STRUCTURE)
def test_leaves_are_the_authors(name):
    expected = {}
    for tensor, shape in STRUCTURE[name].items():
        last = re.search(r"\{0\.\.(\d+)\}", tensor)
        names = [tensor.replace(last[0], str(i)) for i in range(int(last[1]) + 1)] if last else [tensor]
        expected |= dict.fromkeys(names, tuple(map(int, shape.split("x"))))
    found = {}
    for path, leaf in core.flatten(models.create(name).spec()).items():
        axes = FROM_TORCH[leaf.layout] or range(len(leaf.shape))
        found[torch_name(path)] = tuple(leaf.shape[axes.index(i)] for i in range(len(axes)))
    assert found == expected


def test_the_references_leaves_are_the_authors():
    variant = models.create("van_b0")
    with torch.device("meta"):
        state = Reference(depths=(3, 3, 5, 2), dims=(32, 64, 160, 256)).state_dict()
    names = {name for name in state if not name.endswith(BUFFERS)}
    assert names == {torch_name(path) for path in core.flatten(variant.spec())}


@pytest.mark.parametrize("size", [64, (75, 58)])
def test_logits_are_the_references(size):
    model = models.create("van_b0", input_size=size, **SMALL)
    assert_image_matters(model, assert_parity(model, reference()))


def test_the_smallest_model_is_the_references_at_its_own_size():
    module = reference(depths=(3, 3, 5, 2), dims=(32, 64, 160, 256), mlp_ratios=(8, 8, 4, 4))
    assert_image_matters(model := models.create("van_b0"), assert_parity(model, module))


def test_heads_and_stages_are_the_references():
    module = reference()
    model = models.create("van_b0", input_size=64, **SMALL)
    variables, images = variables_from(model.spec(), oracle.state(module)), oracle.image(64)
    with torch.no_grad():
        stages = module.maps(oracle.to_torch(images))
    found, pooled = jax.jit(
        lambda v, x: (
            model.replace(n_classes=0).apply(v, x, capture="stage_*"),
            model.replace(n_classes=-1).apply(v, x),
        )
    )(variables, images)
    assert relative_error(found.value, stages[-1].permute(0, 2, 3, 1)) < 1e-5
    assert relative_error(pooled.value, stages[-1].mean((2, 3))) < 1e-5
    assert list(found.intermediates) == [f"stage_{i}" for i in range(5)]
    for i, stage in enumerate(stages):
        assert relative_error(found.intermediates[f"stage_{i}"], stage.permute(0, 2, 3, 1)) < 1e-5
    assert [(f.channels, f.reduction) for f in model.feature_info] == [(16, 4), (16, 4), (24, 8), (32, 16), (40, 32)]


def test_gradients_are_the_references():
    model = models.create("van_b0", 5, input_size=64, **TWO_STAGES)
    assert_gradient_parity(model, reference(n_classes=5, **TWO_STAGES))


def test_training_is_the_references():
    module = reference(n_classes=5, **TWO_STAGES).train()
    model = models.create("van_b0", 5, input_size=64, **TWO_STAGES)
    variables, images = variables_from(model.spec(), oracle.state(module)), oracle.image(64, batch=4)
    found = jax.jit(lambda v, x: model.apply(v, x, training=True))(variables, images)
    assert relative_error(found.value, oracle.run(module, images)) < 1e-5
    statistics = oracle.state(module)
    for path, value in core.flatten(found.batch_stats, ("batch_stats",)).items():
        assert relative_error(value, statistics[torch_name(path)]) < 1e-5, path


def test_initial_values_are_the_papers():
    params = models.create("van_b0", depths=(1,), dims=(32,)).init(jax.random.key(0))["params"]
    block = params["block1"]["0"]
    np.testing.assert_allclose(block["layer_scale_1"], 1e-2)
    np.testing.assert_allclose(block["layer_scale_2"], 1e-2)
    # Variance 2 / fan-out, where a depthwise convolution has the fan-out of one channel.
    spatial = block["attn"]["spatial_gating_unit"]["conv_spatial"]["kernel"]
    assert jnp.std(spatial) == pytest.approx((2 / 49) ** 0.5, rel=0.1)
    assert jnp.std(block["mlp"]["fc1"]["kernel"]) == pytest.approx((2 / 256) ** 0.5, rel=0.1)


def test_the_authors_files_load_by_path_and_by_name(uploads, tmp_path):
    module, file = reference(**TWO_STAGES), tmp_path / "van_tiny_754.pth.tar"
    torch.save({"epoch": 3, "arch": "van_tiny", "state_dict": module.state_dict()}, file)
    model, variables, norm_stats = flaim.weights.get_model("van_b0", file, **TWO_STAGES)
    expected = variables_from(model.spec(), oracle.state(module))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert norm_stats == {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    uploads.add("Visual-Attention-Network/VAN-Tiny-original", tmp_path)
    _, published, _ = flaim.weights.get_model("van_b0", **TWO_STAGES)
    jax.tree.map(np.testing.assert_array_equal, published, variables)
    assert flaim.list_models("van") == [(f"van_b{i}", "in1k_224") for i in range(4)]
