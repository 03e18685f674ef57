"""Checkpoints on the Hub: pushing, model cards, and loading what was pushed."""

import os
import re
from pathlib import Path

import jax.numpy as jnp
import pytest
from huggingface_hub import ModelCard

from flaim.checkpoints import DIGITS
from flaim.pretrained import source_of
from flaim.weights import CheckpointError, HubError, push_to_hub
from flaim.weights.saving.share import model_card
from tests.weights.saving.letters import PREPROCESSING, holds


def test_push_to_hub(old, new, uploads, monkeypatch):
    details = {"preprocessing": PREPROCESSING, "labels": ["a", "b", "c"], "license": "MIT", "note": "Of letters."}
    url = push_to_hub("org/letters", *old, **details, max_shard_size=100_000, private=True, token="hf_mine")
    folder = uploads.root / "org" / "letters"
    assert url.startswith(f"{uploads.url}/org/letters/commit/")
    assert uploads.private == {"org/letters"} and uploads.tokens - {""} == {"hf_mine"}
    assert uploads.commits == {"org/letters": ["Upload with flaim"]}
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert holds(folder, *old)
    assert (folder / "README.md").read_text() == model_card("org/letters", old[0], **details)
    (folder / "notes.txt").touch()
    push_to_hub("org/letters", *new, card="---\ntags: [mine]\n---\n", message="Two more")
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors", "notes.txt"]
    assert "tags: [mine]" in (folder / "README.md").read_text()
    assert uploads.commits["org/letters"][1:] == ["Two more"]
    assert holds("hf-hub:org/letters", *new)


def test_push_to_hub_that_fails(old, uploads):
    with pytest.raises(CheckpointError, match="1 labels for 3 classes"):
        push_to_hub("org/letters", *old, labels=["a"])
    assert not uploads.requests
    with pytest.raises(HubError, match="'a/b/c' is no repository name"):
        push_to_hub("a/b/c", *old)
    uploads.fail("POST", "repos/create", 403)
    with pytest.raises(HubError, match=r"(?s)uploading to org/letters failed: .*403.*; log in with a token that"):
        push_to_hub("org/letters", *old)
    uploads.faults.clear()
    uploads.fail("POST", "commit", 500)
    with pytest.raises(HubError, match=r"uploading to org/letters failed: .*500"):
        push_to_hub("org/letters", *old)
    assert not list((uploads.root / "org" / "letters").iterdir())


def test_model_card(old):
    model, _ = old
    card = model_card(
        "org/letters", model, preprocessing=PREPROCESSING, labels=["a: 1", "b", "c"], license="My License", note="Hi."
    )
    data = ModelCard(card).data.to_dict()
    assert data == {
        "library_name": "flaim",
        "license": "other",
        "license_name": "my-license",
        "pipeline_tag": "image-classification",
        "tags": ["flaim", "jax", "image-classification"],
    }
    assert "1. b" in card and "mean: 0.5, 0.5, 0.5" in card and "32x32 pixels, 3 channels" in card and "Hi." in card
    for module in ("linen", "nnx", "eqx", "haiku"):
        assert f"from flaim.adapters.{module} import from_pretrained" in card
    features = model_card("org/features", model.replace(n_classes=-1), license="Apache-2.0")
    assert ModelCard(features).data.pipeline_tag == "image-feature-extraction"
    assert ModelCard(features).data.license == "apache-2.0"
    many = model_card("org/many", model.replace(n_classes=1000), labels=[f"class {i}" for i in range(1000)])
    assert "class 99\n" in many and "class 100\n" not in many and "and 900 more" in many


def test_snippets_of_the_card_run(old, uploads):
    model, variables = old
    push_to_hub("org/letters", model, variables)
    card = (uploads.root / "org" / "letters" / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 5
    images = jnp.zeros((1, 32, 32, 3))
    for snippet in snippets[1:]:
        names = {"images": images}
        exec(snippet, names)
        assert names["logits"].shape == (1, 3)


def test_what_from_pretrained_takes_for_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_of("org/name") == "hf-hub:org/name"
    assert source_of("org/name@v1") == "hf-hub:org/name@v1"
    for source in ("hf-hub:org/name", "./folder", "/a/b", "local-dir:a/b", "resnet18.a1_in1k", DIGITS):
        assert source_of(source) == source
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert source_of("org/name") == "org/name"
    assert source_of("org") == Path("org")


# Orbax
