"""Evaluation preprocessing, class names, and handwritten digits to try things on."""

from flaim.data.handwritten import Digits, load_digits
from flaim.data.labels import imagenet_labels, labels_for
from flaim.data.preprocess import ImageError, ImageLike, Preprocess

__all__ = ["Digits", "ImageError", "ImageLike", "Preprocess", "imagenet_labels", "labels_for", "load_digits"]
