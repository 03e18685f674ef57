"""The picture that `flaim demo` draws."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

_ROWS, _COLUMNS = 5, 12
_INK, _GREY, _EDGE, _WRONG = "#222222", "#808080", "#d0d0d0", "#c62828"


def draw(
    path: Path,
    images: UInt8[np.ndarray, "batch height width 1"],
    labels: Int[np.ndarray, "batch"],
    logits: Float[np.ndarray, "batch classes"],
) -> None:
    """Save a picture of the digits that the model reads wrongly or is least sure of; the wrong ones are in red."""
    predictions = logits.argmax(-1)
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = probabilities.max(-1) / probabilities.sum(-1)
    wrong = predictions != labels
    shown = np.lexsort((probabilities, ~wrong))[: _ROWS * _COLUMNS]

    figure = Figure(figsize=(_COLUMNS, 1.25 * _ROWS + 1.0), facecolor="white")
    axes = figure.subplots(_ROWS, _COLUMNS, gridspec_kw=dict(wspace=0.2, hspace=0.45))
    figure.subplots_adjust(left=0.03, right=0.97, bottom=0.06, top=1 - 1.0 / figure.get_figheight())
    title = f"{np.sum(~wrong)} of {len(labels)} held-out digits are right ({np.mean(~wrong):.1%})"
    figure.text(0.03, 1 - 0.4 / figure.get_figheight(), title, size=17, weight="bold", color=_INK)
    subtitle = "First the wrong ones, then those that the model is least sure of, with its reading and certainty"
    figure.text(0.03, 1 - 0.7 / figure.get_figheight(), subtitle, size=12, color=_GREY)

    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, shown):
        ax.imshow(images[i, :, :, 0], cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        ax.set(xlim=(-1, images.shape[2]), ylim=(images.shape[1], -1))
        edge, width = (_WRONG, 2.5) if wrong[i] else (_EDGE, 0.8)
        frame = Rectangle((0, 0), 1, 1, edgecolor=edge, linewidth=width, transform=ax.transAxes)
        frame.set(fill=False, clip_on=False)
        ax.add_patch(frame)
        reading = dict(size=13, weight="bold", transform=ax.transAxes, va="top")
        note = dict(size=10, transform=ax.transAxes, va="top", ha="right")
        if wrong[i]:
            ax.text(0, -0.08, predictions[i], color=_WRONG, **reading)
            ax.text(1, -0.1, f"is {labels[i]}", color=_WRONG, **note)
        else:
            ax.text(0, -0.08, predictions[i], color=_INK, **reading)
            ax.text(1, -0.1, f"{probabilities[i]:.0%}", color=_GREY, **note)
    figure.savefig(path, dpi=100, format="png")
