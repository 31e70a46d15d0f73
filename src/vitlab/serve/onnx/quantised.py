"""A graph with the products of its layers in 8 bits: weights per output channel, activations by the range that images show.

Static quantisation as onnxruntime has it (Jacob et al. 2018, section 2). Patches or pixels, the head, the norms and attention's own
products stay in float32: they are little of the work and most of the loss. Weights have 7 of the 8 bits: processors without the
dot products for neural networks add two products in 16 bits, which 8 overflow, and a file has to be right on all of them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto

from vitlab.serve.onnx.model import IMAGES, LOGITS

_PREPARED = "onnx.quant.pre_process"
"""Metadata that keeps onnxruntime from advising to prepare the graph, which is written as it should be."""


class _Reader:
    """What onnxruntime asks for batches."""

    def __init__(self, batches: Iterable[NDArray[np.uint8]]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch, None after the last."""
        images = next(self._batches, None)
        return None if images is None else {IMAGES: images}


def quantise(path: Path, out: Path, batches: Iterable[NDArray[np.uint8]]) -> None:
    """Write the graph in the file `path` to `out` with its layers in 8 bits, calibrated on `batches` of images [b, 3, h, w]."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    proto = onnx.load_model(str(path))
    onnx.helper.set_model_props(proto, {**_properties(proto), _PREPARED: "onnxruntime.quant"})
    reader: Any = _Reader(batches)
    quantize_static(
        proto,
        str(out),
        reader,
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=layers_of(proto.graph),
        op_types_to_quantize=["MatMul", "Conv"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    written = onnx.load_model(str(out))
    for tensor in written.graph.initializer:  # each in one form: its bytes
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.helper.set_model_props(written, {k: v for k, v in _properties(written).items() if k != _PREPARED})
    written.producer_name = proto.producer_name
    del written.opset_import[:]
    written.opset_import.extend(proto.opset_import)
    onnx.save_model(written, str(out))


def _properties(proto: onnx.ModelProto) -> dict[str, str]:
    return {each.key: each.value for each in proto.metadata_props}


def layers_of(graph: GraphProto) -> list[str]:
    """Return the nodes that multiply by weights, but for the one that reads pixels and the one that gives logits."""
    weights = {each.name for each in graph.initializer if len(each.dims) in (2, 4)}
    found = [node.name for node in graph.node if node.op_type in ("MatMul", "Conv") and node.input[1] in weights]
    first = next(node.name for node in graph.node if node.op_type == "Conv")
    return [name for name in found if name not in (first, "head") and not name.startswith(LOGITS)]
