"""Class names of published classifiers."""

from functools import cache
from importlib import resources


@cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k in the order of the logits, each with all its WordNet synonyms.

    Only one name occurs twice: "crane" is the bird (134) and the machine (517).
    """
    text = resources.files(__package__).joinpath("imagenet1k.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def labels_for(n_classes: int) -> tuple[str, ...] | None:
    """Class names of a classifier with `n_classes` outputs: those of ImageNet-1k for 1000, None for other numbers."""
    return imagenet_labels() if n_classes == 1000 else None
