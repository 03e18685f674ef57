"""Handwritten digits to try things on: scikit-learn's copy of the UCI test set, 1,797 scans of 8x8 pixels.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits" (1998), https://doi.org/10.24432/C50P49.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

# The scans in each part: their places among the scans of a digit, in the order of the data set, modulo 10.
_PARTS = {"train": (0, 1, 2, 5, 6, 7, 8), "validation": (3,), "held_out": (4, 9)}


class Digits(NamedTuple):
    """Scans, bright on dark, the digits they show, and their places in the data set."""

    images: UInt8[np.ndarray, "batch 8 8 1"]
    labels: Int[np.ndarray, "batch"]
    indices: Int[np.ndarray, "batch"]


def load_digits(*parts: str) -> Digits:
    """The scans of some parts of the data set: "train" (7/10 of each digit), "validation" (1/10), "held_out" (2/10).

    The split is fixed: it depends only on the order of the data set. The digits checkpoint of this package never used
    "held_out", neither for training nor for choosing hyperparameters.

    Raises:
        ModuleNotFoundError: scikit-learn, which has the scans, is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed: pip install 'flaim[demo]'", name="sklearn"
        ) from error
    if unknown := sorted(set(parts) - set(_PARTS)):
        raise ValueError(f"the digits have no part {', '.join(unknown)}; they have {', '.join(_PARTS)}")

    data = datasets.load_digits()
    chosen = np.flatnonzero(_belongs(data.target, [place for part in parts for place in _PARTS[part]]))
    images = np.rint(data.images[chosen, :, :, None] * (255 / 16)).astype(np.uint8)  # the scans have 17 levels of grey
    return Digits(images, data.target[chosen], chosen)


def _belongs(labels: Int[np.ndarray, "n"], places: Sequence[int]) -> np.ndarray:
    """Whether each scan's place among the scans of its digit, modulo 10, is one of `places`."""
    order = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        order[of_label] = np.arange(len(of_label))
    return np.isin(order % 10, places)
