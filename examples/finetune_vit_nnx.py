"""Fine-tune a Vision Transformer of Hugging Face's in Flax NNX, on images of your own.

    python examples/finetune_vit_nnx.py photos fine-tuned --checkpoint hf:google/vit-base-patch16-224

`photos` has a folder of images for each class. The checkpoint is a repository on the Hub, or a folder that transformers
saved; its classifier gives way to one for the classes of `photos`. What comes out is in the folder `fine-tuned`, for
`get_model("fine-tuned/")` of any framework and `flaim predict`. A GPU helps.
"""

from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from flax import nnx
from rich.console import Console
from rich.progress import track

from flaim.adapters.nnx import ImageModel, get_model, save_pretrained
from flaim.data import Preprocess
from flaim.weights import resolve


def load(checkpoint: str, n_classes: int, seed: int = 0) -> ImageModel:
    """The checkpoint's model with a new classifier."""
    rngs = nnx.Rngs(seed)
    model, _ = get_model(checkpoint, rngs=rngs)
    model.head = nnx.Linear(model.head.in_features, n_classes, rngs=rngs)
    return model


@nnx.jit
def step(model: ImageModel, optimiser: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    """One step of training on a batch; the mean cross-entropy before it."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimiser.update(model, gradients)
    return value


def train(model: ImageModel, optimiser: nnx.Optimizer, batches) -> list[float]:
    """Train on batches of preprocessed images and labels; the loss on each."""
    model.train()
    losses = [float(step(model, optimiser, jnp.asarray(images), jnp.asarray(labels))) for images, labels in batches]
    model.eval()
    return losses


def main(
    photos: Annotated[Path, typer.Argument(help="A folder of images for each class.")],
    output: Annotated[Path, typer.Argument(help="The folder to save the model in.")] = Path("fine-tuned"),
    checkpoint: str = "hf:google/vit-base-patch16-224",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 3e-5,
    seed: int = 0,
) -> None:
    """Fine-tune a Vision Transformer on images of your own."""
    classes = sorted(folder.name for folder in photos.iterdir() if folder.is_dir())
    examples = [(file, label) for label, name in enumerate(classes) for file in sorted((photos / name).iterdir())]
    model = load(checkpoint, len(classes), seed)
    nnx.display(model)

    preprocessing = resolve(checkpoint).preprocessing
    preprocess, random = Preprocess.from_row(preprocessing), np.random.default_rng(seed)

    def batches():
        order = random.permutation(len(examples))
        for start in track(range(0, len(order), batch_size), "training"):
            files, labels = zip(*(examples[i] for i in order[start : start + batch_size]))
            yield preprocess(list(files)), np.array(labels)

    optimiser = nnx.Optimizer(model, optax.adamw(learning_rate), wrt=nnx.Param)
    for epoch in range(epochs):
        losses = train(model, optimiser, batches())
        Console().print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    save_pretrained(output, model, preprocessing=preprocessing, labels=classes)


if __name__ == "__main__":
    typer.run(main)
