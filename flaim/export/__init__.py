"""Models for other runtimes: StableHLO and ONNX. Functions of a model and its variables."""

from flaim.export._common import ExportError, describe
from flaim.export._onnx import save_onnx, to_onnx
from flaim.export._stablehlo import save_stablehlo, to_stablehlo

__all__ = ["ExportError", "describe", "save_onnx", "save_stablehlo", "to_onnx", "to_stablehlo"]
