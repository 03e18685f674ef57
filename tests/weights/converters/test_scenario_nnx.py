"""What flaim is for: a Vision Transformer of Hugging Face's, taken into Flax NNX and trained on."""

import json
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from flaim.adapters.nnx import get_model, save_pretrained, to_variables
from flaim.weights import resolve
from tests import oracle

import transformers as hf  # isort: skip -- after `oracle`, which makes torchvision importable

pytestmark = pytest.mark.usefixtures("lenient")  # optax promotes

EXAMPLE = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "finetune_vit_nnx.py"))

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


def test_vit_of_hugging_face_in_nnx(repository, uploads, tmp_path, capsys):
    folder, reference = repository
    uploads.add("google/vit-base-patch16-224", folder)
    model, norm_stats = get_model("hf:google/vit-base-patch16-224")
    images = jnp.asarray(oracle.image(224))
    with torch.no_grad():
        expected = reference(oracle.to_torch(np.asarray(images))).logits.numpy()
    assert np.abs(nnx.jit(model)(images) - expected).max() < 1e-4
    assert norm_stats == {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert resolve("hf:google/vit-base-patch16-224").labels[999] == "class 999"

    before = to_variables(model)
    model.head = nnx.Linear(model.head.in_features, 405, rngs=nnx.Rngs(0))
    nnx.display(model)
    assert "out_features=405" in capsys.readouterr().out

    optimiser = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
    losses = EXAMPLE["train"](model, optimiser, [(images, np.array([3, 404]))] * 4)
    assert losses[-1] < losses[0] / 2, losses
    after = to_variables(model)
    changed = jax.tree.map(lambda a, b: a.shape != b.shape or bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(changed)), "training leaves parameters as they were"

    save_pretrained(tmp_path / "mine", model, preprocessing=norm_stats, labels=[f"mine {i}" for i in range(405)])
    again, stats = get_model(tmp_path / "mine")
    assert stats == norm_stats
    np.testing.assert_array_equal(nnx.jit(again)(images), nnx.jit(model)(images))


def test_the_example(repository, tmp_path, capsys):
    from PIL import Image

    folder, _ = repository
    photos, output = tmp_path / "photos", tmp_path / "fine-tuned"
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (photos / name).mkdir(parents=True)
        for shade in (0, 40):
            Image.new("RGB", (60, 50), tuple(max(c - shade, 0) for c in colour)).save(photos / name / f"{shade}.png")
    EXAMPLE["main"](photos, output, checkpoint=str(folder), epochs=2, batch_size=4, learning_rate=1e-3)
    shown = capsys.readouterr().out
    assert "out_features=2" in shown
    first, second = (float(line.split()[-1]) for line in shown.splitlines() if line.startswith("epoch "))
    assert second < first
    config = resolve(output)
    assert config.labels == ("blue", "red")
    assert config.preprocessing == resolve(folder).preprocessing
