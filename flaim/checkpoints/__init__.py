"""Checkpoints inside the package, which need no network."""

from pathlib import Path

DIGITS = Path(__file__).parent / "digits"
"""A small ResNet that reads handwritten digits (`examples/train_digits.py`): `flaim.get_model(checkpoints.DIGITS)`."""
