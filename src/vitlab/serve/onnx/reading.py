"""ONNX files of strangers: what is not a graph as `vitlab export` writes them is refused before onnxruntime sees it.

A graph is a program, if a small one. Only operators of inference are let in: no loops, no branches, no functions, no libraries of
others, no tensors from other places than the one file beside it; and no number in it asks for more memory than a model would.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from vitlab.errors import WeightsError
from vitlab.serve.onnx.about import read_metadata
from vitlab.serve.onnx.graph import OPSET
from vitlab.serve.onnx.model import CHANNELS, FEATURES, IMAGES, LOGITS
from vitlab.serve.onnx.session import Session
from vitlab.weights.save import Header

MAX_BYTES = 2**31 - 1
"""Of the graph: what protobuf can hold. Larger models have their weights in a file beside it."""
MAX_NUMBER = 1 << 20
"""The largest size, stride or padding that a graph may ask for; "to the end" and "what is left" (-1) are allowed beside."""
MAX_VOLUME = 1 << 28
"""How many numbers a constant shape may ask for."""
END = 2**63 - 1
OPERATORS = {
    "Abs",
    "Add",
    "AveragePool",
    "Cast",
    "Concat",
    "Conv",
    "Cos",
    "DequantizeLinear",
    "Div",
    "Einsum",
    "Equal",
    "Expand",
    "Floor",
    "Gather",
    "GatherElements",
    "Gelu",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Pad",
    "QuantizeLinear",
    "Range",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Round",
    "Shape",
    "Sin",
    "Slice",
    "Softmax",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Where",
}
"""What `vitlab export` writes."""


@dataclass(frozen=True)
class Opened:
    """A graph from a file: ready to run, and what it says of itself."""

    session: Session
    header: Header


def suffix_of_data(path: Path) -> Path:
    """Return the file beside the graph `path` that holds the weights of a model too large for one file."""
    return path.with_name(f"{path.name}.data")


def open_graph(path: Path) -> Opened:
    """Return the graph in the file `path`, which `vitlab export` wrote.

    Raises:
        WeightsError: it is no such file, or one that must not be run.
    """
    proto, data = _parsed(path)
    header = read_metadata({each.key: each.value for each in proto.metadata_props}, path)
    refuse_foreign(proto, path)
    outside = _external(proto.graph, path)
    _refuse_other_ends(proto.graph, header, path)
    try:
        session = Session(path if outside else data)
    except Exception as error:  # onnxruntime's own, of many classes
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(path, f"is refused by onnxruntime ({first})", "export it again") from None
    return Opened(session, header)


def _parsed(path: Path) -> tuple[ModelProto, bytes]:
    try:
        if not path.is_file():
            raise WeightsError(path, "is no file" if path.exists() else "does not exist", "check the path")
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(path, "is larger than an ONNX file can be (2 GB)", "export it again")
        data = path.read_bytes()
        return ModelProto.FromString(data), data
    except DecodeError:
        raise WeightsError(path, "is no ONNX file, or damaged", "export it again") from None
    except OSError as error:
        raise WeightsError(path, f"cannot be read ({error.strerror})", "check the path") from None


def refuse_foreign(proto: ModelProto, path: Path) -> None:
    """Refuse a graph that is more than layers from images to logits.

    Raises:
        WeightsError: it is.
    """
    graph = proto.graph
    wrong = [f"operators of '{each.domain}'" for each in proto.opset_import if each.domain not in ("", "ai.onnx")]
    wrong += [f"opset {each.version}" for each in proto.opset_import if each.version != OPSET]
    wrong += ["functions"] if proto.functions else []
    wrong += ["sparse tensors"] if graph.sparse_initializer else []
    wrong += [f"the operator {node.op_type}" for node in graph.node if node.op_type not in OPERATORS or node.domain]
    wrong += [f"{attribute.name} of {node.name}" for node, attribute in _attributes(graph.node) if _asks(attribute)]
    wrong += [f"the tensor {each.name}" for each in graph.initializer if _is_bomb(each)]
    if wrong:
        raise WeightsError(
            path, f"has {wrong[0]}, which no exported model has", "give a graph that `vitlab export` wrote"
        )


def _attributes(nodes: Iterable[NodeProto]) -> list[tuple[NodeProto, AttributeProto]]:
    return [(node, attribute) for node in nodes for attribute in node.attribute]


def _asks(attribute: AttributeProto) -> bool:
    """Return whether an attribute is something else than small numbers and words."""
    kinds = AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING
    numbers = [attribute.i, *attribute.ints]
    return attribute.type not in kinds or any(abs(number) > MAX_NUMBER for number in numbers)


def _is_bomb(tensor: TensorProto) -> bool:
    """Return whether a tensor is no plain array of what its shape says, or a shape that asks for very much."""
    try:
        dtype = tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return True
    if dtype.kind not in "fiub" or any(dim < 0 for dim in tensor.dims):
        return True
    if tensor.data_location == TensorProto.EXTERNAL:
        return dtype.kind != "f"
    if len(tensor.raw_data) != math.prod(tensor.dims) * dtype.itemsize:
        return True
    if dtype.kind == "f" or dtype.itemsize == 1 or math.prod(tensor.dims) > 16:  # weights; tables of offsets
        return False
    numbers = [abs(int(each)) for each in numpy_helper.to_array(tensor).reshape(-1) if each != END]
    return max(numbers, default=0) > MAX_NUMBER or math.prod(max(each, 1) for each in numbers) > MAX_VOLUME


def _external(graph: GraphProto, path: Path) -> bool:
    """Return whether weights are in the file beside `path`.

    Raises:
        WeightsError: they are anywhere else, or not there.
    """
    outside = [each for each in graph.initializer if each.data_location == TensorProto.EXTERNAL]
    if not outside:
        return False
    beside = suffix_of_data(path)
    if any({e.key: e.value for e in each.external_data}.get("location") != beside.name for each in outside):
        raise WeightsError(path, f"has weights in other files than {beside.name}", "export it again")
    if beside.is_symlink() or not beside.is_file():
        raise WeightsError(path, f"has its weights in {beside.name}, which is not beside it", "put the two together")
    size = beside.stat().st_size
    for each in outside:
        place = {
            e.key: int(e.value) for e in each.external_data if e.key in ("offset", "length") and e.value.isdecimal()
        }
        length = math.prod(each.dims) * tensor_dtype_to_np_dtype(each.data_type).itemsize
        if place.get("length") != length or place.get("offset", size) + length > size:
            raise WeightsError(path, f"does not fit {beside.name}", "export it again")
    return True


def _refuse_other_ends(graph: GraphProto, header: Header, path: Path) -> None:
    """Refuse a graph that does not lead from images to the logits of the classes."""
    inputs, outputs = [each.name for each in graph.input], [each.name for each in graph.output]
    wanted = [LOGITS, FEATURES] if header.settings.num_classes else [FEATURES]
    images = [each.type.tensor_type for each in graph.input][:1]
    fits = [each.elem_type == TensorProto.UINT8 and len(each.shape.dim) == 4 for each in images] == [True]
    if inputs != [IMAGES] or outputs != wanted or not fits or images[0].shape.dim[1].dim_value != CHANNELS:
        raise WeightsError(path, "does not lead from images to logits", "give a graph that `vitlab export` wrote")
