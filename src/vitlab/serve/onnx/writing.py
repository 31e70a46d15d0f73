"""A graph as a file; the weights of one that protobuf cannot hold in a second file beside it."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto

from vitlab import files
from vitlab.models.classifier import Classifier
from vitlab.serve.onnx.about import metadata
from vitlab.serve.onnx.model import ALIGNMENT, draw, to_proto
from vitlab.serve.onnx.reading import suffix_of_data

LARGEST = 1_900_000_000
"""Bytes of weights that are kept in the graph itself: protobuf holds 2³¹."""


def write_graph(model: Classifier, path: Path, *, dynamic_size: bool = False, largest: int = LARGEST) -> None:
    """Write `model` to the ONNX file `path`; weights of more than `largest` bytes go to `path`.data."""
    graph = draw(model, dynamic_size=dynamic_size)
    size = sum(values.nbytes for values in graph.weights.values())
    beside = suffix_of_data(path) if size > largest else None
    proto, outside = to_proto(
        graph, model, metadata(model), dynamic_size=dynamic_size, beside=None if beside is None else beside.name
    )
    if beside is not None:
        with beside.open("wb") as file:
            for name in outside:
                values = np.ascontiguousarray(graph.weights[name])
                file.write(values.tobytes())
                file.write(bytes(-values.nbytes % ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
    files.write_bytes(path, proto.SerializeToString())


def add_metadata(path: Path, more: Mapping[str, str]) -> None:
    """Add to what the graph in the file `path` says of itself."""
    proto = ModelProto.FromString(path.read_bytes())
    for key, value in more.items():
        proto.metadata_props.add(key=key, value=value)
    files.write_bytes(path, proto.SerializeToString())
