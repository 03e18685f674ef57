"""Upload checkpoints to the Hub, with a model card."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaim.model import Model
from flaim.weights.saving.native import save_pretrained
from flaim.weights.saving.writer import MAX_SHARD_SIZE
from flaim.weights.sources import hub

# The Hub's identifiers of licenses that image models may have; any other license is "other" with a `license_name`.
_LICENSES = {
    *("agpl-3.0", "apache-2.0", "apple-amlr", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc0-1.0", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "openrail"),
    *("unlicense", "zlib"),
}

_SNIPPETS = {
    "Flax Linen": """
from flaim.adapters.linen import from_pretrained

model, variables, norm_stats = from_pretrained("{repo}")
{output} = model.apply(variables, images)
""",
    "Flax NNX": """
from flaim.adapters.nnx import from_pretrained

model, norm_stats = from_pretrained("{repo}")
{output} = model(images)
""",
    "Equinox": """
from flaim.adapters.eqx import from_pretrained

model, state, norm_stats = from_pretrained("{repo}")
{output}, state = model(images, state)
""",
    "Haiku": """
from flaim.adapters.haiku import from_pretrained

model, params, state, norm_stats = from_pretrained("{repo}")
{output}, state = model.apply(params, state, None, images)
""",
}

_CARD = """---
{front_matter}
---

# {title}

{summary}

## Use

`pip install flaim` with the framework's extra, `"flaim[linen]"`, `"flaim[nnx]"`, `"flaim[eqx]"` or `"flaim[haiku]"`.
Images are normalised ones, channels last, `(batch, {height}, {width}, {channels})`; `flaim.data.Preprocess` makes them:

```python
from flaim.data import Preprocess
from flaim.weights import resolve

images = Preprocess.from_row(resolve("hf-hub:{repo}").preprocessing)("image.png")
```

{snippets}

## Preprocessing

{preprocessing}

## Classes

{classes}
"""
_CLASSES_SHOWN = 100


def push_to_hub(
    repo_id: str,
    model: Model,
    variables: Mapping,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    license: str | None = None,
    note: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
    card: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload with flaim",
) -> str:
    """Upload a model and its variables to the Hugging Face Hub in one commit; returns the commit's address.

    Args:
        repo_id: `"organisation/name"`; the repository is created if it does not exist. Old weights files in it are
            deleted, other files stay.
        model, variables, preprocessing, labels, license, note, max_shard_size: As in `save_pretrained`.
        card: README.md of the repository; None: generated, with all of the above and how to load the model.
        private: Whether a new repository is private; None: the organisation's default.
        token: Access token; None: the one that the user has logged in with.
        message: Of the commit.

    Raises:
        CheckpointError: As `save_pretrained` does.
        HubError: No permission, no connection, or the server failed. The repository's files are unchanged.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(
            folder,
            model,
            variables,
            preprocessing=preprocessing,
            labels=labels,
            license=license,
            note=note,
            max_shard_size=max_shard_size,
        )
        if card is None:
            card = model_card(repo_id, model, preprocessing=preprocessing, labels=labels, license=license, note=note)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        return hub.upload(
            Path(folder), repo_id, replaced="model*.safetensors*", message=message, private=private, token=token
        )


def model_card(
    repo_id: str,
    model: Model,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    license: str | None = None,
    note: str | None = None,
) -> str:
    """The README.md of a model on the Hub: what it is, how to load it in each framework, its preprocessing and classes.

    The arguments are those of `push_to_hub`.
    """
    classifies = model.n_classes > 0
    task = "image-classification" if classifies else "image-feature-extraction"
    front_matter: dict[str, Any] = {"library_name": "flaim", "pipeline_tag": task, "tags": ["flaim", "jax", task]}
    if license:
        known = license.lower() in _LICENSES
        front_matter["license"] = license.lower() if known else "other"
        front_matter |= {} if known else {"license_name": re.sub(r"[^a-z0-9.-]+", "-", license.lower())}
    height, width = model.input_size
    channels = f"{model.in_channels} channel{'s'[: model.in_channels != 1]}"
    output = f"{model.n_classes} classes" if classifies else "features, no classes"
    lines = [f"- {name}: {_value(value)}" for name, value in (preprocessing or {}).items() if name != "input_size"]
    snippet = "### {}\n\n```python\n{}\n```"
    names = {"repo": repo_id, "output": "logits" if classifies else "features"}
    return _CARD.format(
        # JSON is valid YAML for any string.
        front_matter="\n".join(f"{name}: {json.dumps(value)}" for name, value in sorted(front_matter.items())),
        title=repo_id.rpartition("/")[2],
        summary="\n\n".join(
            [f"A {model.name} for images of {height}x{width} pixels with {channels}; {output}.", *filter(None, [note])]
        ),
        repo=repo_id,
        height=height,
        width=width,
        channels=model.in_channels,
        snippets="\n\n".join(snippet.format(name, code.format(**names).strip()) for name, code in _SNIPPETS.items()),
        preprocessing="\n".join([f"- images: {height}x{width} pixels, {channels}, from 0 to 1 at first", *lines]),
        classes=_classes(model, labels),
    )


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _classes(model: Model, labels: Sequence[str] | None) -> str:
    if model.n_classes <= 0:
        return "None: the model has features to give."
    if labels is None:
        return f"{model.n_classes}, without names."
    rest = len(labels) - _CLASSES_SHOWN
    more = [f"and {rest} more, which `config.json` has."] if rest > 0 else []
    return "\n".join([*(f"{i}. {label}" for i, label in enumerate(labels[:_CLASSES_SHOWN])), *more])
