"""Evaluation preprocessing and class names."""

from flaim.data.labels import imagenet_labels, labels_for
from flaim.data.preprocess import ImageError, ImageLike, Preprocess

__all__ = ["ImageError", "ImageLike", "Preprocess", "imagenet_labels", "labels_for"]
