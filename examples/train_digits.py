"""Train the digits checkpoint that comes with flaim: a small ResNet on scikit-learn's 1,797 handwritten digits.

    python examples/train_digits.py my-digits

It takes two minutes on a CPU and needs the extra `all`. The held-out digits are classified once, at the end; nothing
was chosen by looking at them.
"""

from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from jax.scipy.ndimage import map_coordinates
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from flaim.data import Preprocess, load_digits
from flaim.models import create
from flaim.weights import save_pretrained

# A ResNet-10 of less than a tenth of the usual widths, on scans that are enlarged from 8x8 to 32x32 pixels.
MODEL = create(
    "resnet10t", n_classes=10, input_size=32, in_channels=1, stem_widths=(8, 16, 16), widths=(16, 24, 32, 48)
)


@jax.vmap
def augment(key, image):
    """An image `(height, width, 1)` turned by up to 15 degrees, stretched and shifted by up to a tenth."""
    angle, *numbers = jax.random.uniform(key, (5,), minval=-1.0)
    stretch, shift = jnp.array(numbers[:2]), jnp.array(numbers[2:])
    cos, sin = jnp.cos(angle * jnp.pi / 12), jnp.sin(angle * jnp.pi / 12)
    transform = jnp.array([[cos, -sin], [sin, cos]]) * 1.1**stretch

    height, width, _ = image.shape
    size = jnp.array([height, width])
    centre = (size - 1) / 2
    positions = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    sources = (positions - centre) @ transform.T + centre + shift * size / 10
    return map_coordinates(image[..., 0], tuple(jnp.moveaxis(sources, -1, 0)), order=1, mode="nearest")[..., None]


def loss(params, batch_stats, images, labels):
    """Mean cross-entropy with smoothed labels, and the new running statistics."""
    output = MODEL.apply({"params": params, "batch_stats": batch_stats}, images, training=True)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), 0.1)
    return optax.softmax_cross_entropy(output.value, targets).mean(), output.batch_stats


def train(images, labels, *, epochs, batch_size, learning_rate, weight_decay, seed, progress):
    """The variables after `epochs` passes over the images, each in an order of its own."""
    steps = len(labels) // batch_size
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, epochs * steps // 10, epochs * steps)
    # Kernels decay, biases and the scales of the norms do not.
    optimiser = optax.adamw(
        schedule, weight_decay=weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )

    @jax.jit
    def step(variables, optimiser_state, chosen, key):
        batch = augment(jax.random.split(key, len(chosen)), images[chosen])
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, batch_stats), grads = gradient(variables["params"], variables["batch_stats"], batch, labels[chosen])
        updates, optimiser_state = optimiser.update(grads, optimiser_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": batch_stats}, optimiser_state, value

    init_key, train_key = jax.random.split(jax.random.key(seed))
    variables = MODEL.init(init_key)
    optimiser_state = optimiser.init(variables["params"])
    task = progress.add_task("training", total=epochs)
    for epoch in range(epochs):
        epoch_key = jax.random.fold_in(train_key, epoch)
        order = jax.random.permutation(epoch_key, len(labels))
        for i in range(steps):
            chosen = order[i * batch_size : (i + 1) * batch_size]
            step_key = jax.random.fold_in(epoch_key, i)
            variables, optimiser_state, value = step(variables, optimiser_state, chosen, step_key)
        progress.update(task, advance=1, description=f"training, loss {value:.3f}")
    return variables


def main(
    output: Annotated[Path, typer.Argument(help="Folder for model.safetensors and config.json.")],
    epochs: int = 60,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
) -> None:
    """Train the digits checkpoint that comes with flaim."""
    scans = {part: load_digits(part) for part in ("train", "validation", "held_out")}
    preprocessing = {"interpolation": "bicubic", "crop_pct": 1.0}
    pixels = Preprocess(MODEL.input_size, (0.0,), (1.0,), **preprocessing)(scans["train"].images)
    preprocessing |= {"mean": (round(float(pixels.mean()), 4),), "std": (round(float(pixels.std()), 4),)}
    preprocess = Preprocess(MODEL.input_size, **preprocessing)
    images = {part: preprocess(scan.images) for part, scan in scans.items()}

    console = Console()
    with Progress(console=console) as progress:
        variables = train(
            jnp.asarray(images["train"]),
            jnp.asarray(scans["train"].labels),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
            progress=progress,
        )

    table = Table("digits", "number", "wrong", "accuracy")
    forward = jax.jit(lambda variables, x: MODEL.apply(variables, x).value)
    for part, scan in scans.items():
        logits = forward(variables, images[part])
        wrong = int(np.sum(np.argmax(logits, -1) != scan.labels))
        accuracy = f"{1 - wrong / len(scan.labels):.2%}"
        table.add_row(part.replace("_", " "), str(len(scan.labels)), str(wrong), accuracy)
    console.print(table)

    save_pretrained(
        output,
        MODEL,
        variables,
        preprocessing=preprocessing,
        labels=[str(digit) for digit in range(10)],
        license="Apache-2.0",
        note=f"scikit-learn's handwritten digits, trained by examples/train_digits.py; {accuracy} of the held-out "
        'digits, flaim.data.load_digits("held_out"), are right.',
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    console.print(f"{MODEL.name} with {parameters:,} parameters saved in {output}")


if __name__ == "__main__":
    typer.run(main)
