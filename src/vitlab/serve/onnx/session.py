"""onnxruntime: a graph that runs, whether it was just written or comes from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vitlab.models.classifier import Classifier
from vitlab.serve.onnx.about import metadata
from vitlab.serve.onnx.model import IMAGES, draw, to_proto

_ERRORS_ONLY = 3


class Session:
    """A graph that onnxruntime runs on the CPU, with as many threads as torch has."""

    def __init__(self, source: bytes | Path, weights: Mapping[str, NDArray[Any]] | None = None) -> None:
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = _ERRORS_ONLY
        self._kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in (weights or {}).items()}
        if self._kept:
            options.add_external_initializers(list(self._kept), list(self._kept.values()))
        given = str(source) if isinstance(source, Path) else source
        self._session: Any = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return every output for images uint8 [b, 3, h, w]."""
        return dict(zip(self.outputs, self._session.run(self.outputs, {IMAGES: images}), strict=True))


def session_of(model: Classifier) -> Session:
    """Return `model` as a graph that runs; its weights are not written anywhere."""
    graph = draw(model)
    proto, outside = to_proto(graph, model, metadata(model), beside="memory")
    return Session(proto.SerializeToString(), {name: graph.weights[name] for name in outside})
