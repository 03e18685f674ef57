"""ONNX, by jax2onnx."""

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import flaim_core as core
from flaim.export._common import ExportError, NormStats, describe, inference
from flaim.model import Model

if TYPE_CHECKING:
    import onnx_ir

# A protobuf file holds 2 GB; larger weights go into a second file of raw numbers.
_MOST_BYTES = 2**31 - 2**24


def to_onnx(
    model: Model,
    variables: Mapping,
    *,
    batch: int | None = None,
    norm_stats: NormStats | None = None,
    facts: Mapping[str, Any] | None = None,
) -> "onnx_ir.Model":
    """The model as an ONNX graph from `images` (batch, height, width, channels) to `logits` or `features`.

    Args:
        model, variables: As `get_model` of `flaim.models` returns them.
        batch: Number of images per call; None: any number.
        norm_stats: `{"mean": ..., "std": ...}`, with which the graph itself normalises images in [0, 1]; None: it
            takes normalised images.
        facts: Its metadata; by default the result of `describe`.

    Raises:
        ImportError: jax2onnx is not installed; the message names the extra.
        ExportError: jax2onnx cannot convert the model.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise ImportError('ONNX needs jax2onnx: pip install "flaim[onnx]"') from error

    shape = ("batch" if batch is None else batch, *model.input_size, model.in_channels)
    output = "logits" if model.n_classes > 0 else "features"
    options: dict = dict(model_name=model.name, input_names=["images"], output_names=[output], return_mode="ir")
    try:
        with core.lowering("portable"):
            converted = jax2onnx.to_onnx(inference(model, variables, norm_stats), inputs=[shape], **options)
    except Exception as error:  # the converter raises all kinds of errors
        raise ExportError(f"jax2onnx cannot convert {model.name} ({type(error).__name__}): {error}") from error
    _pool_two_axes(converted.graph)
    facts = describe(model, norm_stats=norm_stats) if facts is None else facts
    for name, value in facts.items():
        converted.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return converted


def save_onnx(converted: "onnx_ir.Model", path: str | PathLike) -> list[Path]:
    """Write the graph to `path`, and weights of more than 2 GB to `<path>.data`; returns the files written."""
    import onnx_ir

    path = Path(path)
    size = sum(tensor.const_value.nbytes for tensor in converted.graph.initializers.values() if tensor.const_value)
    if size <= _MOST_BYTES:
        onnx_ir.save(converted, path)
        return [path]
    data = f"{path.name}.data"
    onnx_ir.save(converted, path, external_data=data)
    return [path, path.with_name(data)]


def _pool_two_axes(graph: "onnx_ir.Graph") -> None:
    """Replace the converter's pools over all four axes of images by pools over height and width.

    The converter writes a maximum as MaxPool and a sum as a convolution with ones, both between two Unsqueeze and a
    Squeeze. Runtimes pool three axes at most.
    """
    for node in list(graph):
        squeeze = _only_user(node)
        if squeeze is None or squeeze.op_type != "Squeeze" or node.op_type not in ("MaxPool", "Conv"):
            continue
        images, kernel = _unsqueezed_twice(node.inputs[0]), _window(node)
        if images is not None and kernel is not None and kernel[0] == kernel[3] == 1:
            _replace(graph, node, squeeze, images, kernel)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _only_user(node: "onnx_ir.Node") -> Any:
    users = [user for output in node.outputs for user, _ in output.uses()]
    return users[0] if len(users) == 1 else None


def _unsqueezed_twice(value: Any) -> Any:
    """The input of the two Unsqueeze that produce `value`, or None."""
    for _ in range(2):
        producer = value.producer()
        if producer is None or producer.op_type != "Unsqueeze":
            return None
        value = producer.inputs[0]
    return value


def _window(node: "onnx_ir.Node") -> tuple[int, ...] | None:
    """The size of a pooling node's window along the four axes of images; None for any other node."""
    if node.op_type == "MaxPool":
        window = tuple(node.attributes["kernel_shape"].as_ints())
        return window if len(window) == 4 else None
    value = node.inputs[1]
    weights = None if value is None else value.const_value
    if weights is None or len(weights.shape) != 6 or not (weights.numpy() == 1).all():
        return None
    return tuple(weights.numpy().shape)[2:]


def _replace(graph: Any, node: Any, squeeze: Any, images: Any, window: tuple[int, ...]) -> None:
    """Replace `node` by a pool over height and width, between transpositions."""
    import onnx_ir as ir

    def ints(name: str, default: list[int]) -> list[int]:
        return list(node.attributes[name].as_ints()) if name in node.attributes else default

    pads = ints("pads", [0] * 8)
    options: dict = {
        "kernel_shape": window[1:3],
        "strides": ints("strides", [1] * 4)[1:3],
        "pads": [*pads[1:3], *pads[5:7]],
    }
    channels_first = ir.node("Transpose", [images], {"perm": [0, 3, 1, 2]})
    if node.op_type == "MaxPool":
        added = [channels_first, ir.node("MaxPool", channels_first.outputs, options)]
    else:  # the sum is the mean times the size of the window
        mean = ir.node("AveragePool", channels_first.outputs, {**options, "count_include_pad": 1})
        dtype = node.inputs[1].const_value.numpy().dtype
        count = ir.node("Constant", [], {"value": ir.tensor(np.asarray(math.prod(window), dtype))})
        added = [channels_first, mean, count, ir.node("Mul", [mean.outputs[0], count.outputs[0]])]
    channels_last = ir.node("Transpose", added[-1].outputs, {"perm": [0, 2, 3, 1]})
    for given in (*added, channels_last):
        given.outputs[0].type = images.type
    graph.insert_before(node, [*added, channels_last])
    result = squeeze.outputs[0]
    channels_last.outputs[0].shape = result.shape
    ir.convenience.replace_all_uses_with(result, channels_last.outputs[0], replace_graph_outputs=True)
    before = [node.inputs[0].producer(), node.inputs[0].producer().inputs[0].producer()]
    graph.remove([squeeze, node], safe=True)
    for unsqueeze in before:
        if not unsqueeze.outputs[0].uses():
            graph.remove(unsqueeze, safe=True)
