"""Converters: from one library's names and documents to flaim's leaves and options."""

from flaim.weights.converters._converter import Converter
from flaim.weights.converters.big_transfer import BIG_TRANSFER
from flaim.weights.converters.big_vision import BIG_VISION
from flaim.weights.converters.flaim_v0 import FLAIM_V0
from flaim.weights.converters.keras import KERAS
from flaim.weights.converters.native import NATIVE
from flaim.weights.converters.timm import TIMM
from flaim.weights.converters.transformers import TRANSFORMERS

__all__ = ["CONVERTERS", "Converter"]

# By name, in the order in which they are asked whether they recognise a checkpoint.
_ORDER = (NATIVE, TIMM, TRANSFORMERS, BIG_VISION, BIG_TRANSFER, FLAIM_V0, KERAS)
CONVERTERS = {converter.name: converter for converter in _ORDER}
