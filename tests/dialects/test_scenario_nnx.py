"""What flaim is for: a Vision Transformer of Hugging Face's, taken into Flax NNX and trained on."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from flaim.adapters.nnx import get_model, to_variables
from tests import oracle

import transformers as hf  # isort: skip -- after `oracle`, which makes torchvision importable

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "finetune_vit_nnx.py"))

# google/vit-base-patch16-224, two layers deep and a twelfth as wide.
SIZES = dict(hidden_size=64, num_attention_heads=4, intermediate_size=256, num_hidden_layers=2)
PREPROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """(folder, transformers' model): what the Hub has, with random numbers."""
    folder = tmp_path_factory.mktemp("vit-base-patch16-224")
    labels = {i: f"class {i}" for i in range(1000)}
    model = hf.ViTForImageClassification(hf.ViTConfig(**SIZES, id2label=labels))
    oracle.randomise(model.eval()).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder, model


def test_vit_of_hugging_face_in_nnx(repository, capsys):
    folder, reference = repository
    model, norm_stats = get_model(folder)
    images = oracle.image(224)
    with torch.no_grad():
        expected = reference(oracle.to_torch(images)).logits.numpy()
    assert np.abs(nnx.jit(model)(jax.numpy.asarray(images)) - expected).max() < 1e-4
    assert norm_stats == {"mean": (0.5,) * 3, "std": (0.5,) * 3}

    before = to_variables(model)
    model.head = nnx.Linear(model.head.in_features, 405, rngs=nnx.Rngs(0))
    nnx.display(model)
    assert "out_features=405" in capsys.readouterr().out

    labels = np.array([3, 404])
    losses = EXAMPLE["train"](model, [(images, labels)] * 4, 1e-3)
    assert losses[-1] < losses[0] / 2, losses
    after = to_variables(model)
    changed = jax.tree.map(lambda a, b: a.shape != b.shape or bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(changed)), "training leaves parameters as they were"


def test_the_example(repository, tmp_path, capsys):
    from PIL import Image

    folder, _ = repository
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (tmp_path / name).mkdir()
        for shade in (0, 40):
            Image.new("RGB", (60, 50), tuple(max(c - shade, 0) for c in colour)).save(tmp_path / name / f"{shade}.png")
    EXAMPLE["main"](tmp_path, checkpoint=str(folder), epochs=2, batch_size=4, learning_rate=1e-3)
    shown = capsys.readouterr().out
    assert "out_features=2" in shown
    first, second = (float(line.split()[-1]) for line in shown.splitlines() if line.startswith("epoch "))
    assert second < first
