"""onnxruntime: a graph that runs, whether it was just written or comes from a file."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vitlab.cost.available import available_memory
from vitlab.errors import WeightsError
from vitlab.models.classifier import Classifier
from vitlab.serve.onnx.about import metadata
from vitlab.serve.onnx.model import IMAGES, draw, to_proto

_FATAL_ONLY = 4
"""What is logged: errors are raised, and a log of them would have names from the file as they are."""
_ROOM = 0.75
"""The share of the memory that is there which graphs from files may take together."""


class Session:
    """A graph that onnxruntime runs on the CPU, with as many threads as torch has.

    One of a stranger is `bounded`: its memory is, and `name` is the file to blame.
    """

    def __init__(
        self,
        source: bytes | Path,
        weights: Mapping[str, NDArray[Any]] | None = None,
        *,
        bounded: bool = False,
        name: str | Path = "graph",
    ) -> None:
        self._name = name
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = _FATAL_ONLY
        if bounded:
            _bound_memory()
            options.add_session_config_entry("session.use_env_allocators", "1")
        self._kept = {name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in (weights or {}).items()}
        if self._kept:
            options.add_external_initializers(list(self._kept), list(self._kept.values()))
        given = str(source) if isinstance(source, Path) else source
        self._session: Any = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        self._how: Any = onnxruntime.RunOptions()
        self._how.log_severity_level = _FATAL_ONLY
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return every output for images uint8 [b, 3, h, w].

        Raises:
            WeightsError: the graph cannot be run on them, or needs more memory than there is.
        """
        try:
            found = self._session.run(self.outputs, {IMAGES: images}, self._how)
        except Exception as error:  # onnxruntime's own, of many classes
            raise WeightsError(self._name, f"cannot be run ({first_line(error)})", "export it again") from None
        return dict(zip(self.outputs, found, strict=True))


def first_line(error: Exception) -> str:
    """Return what onnxruntime says is wrong."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@cache
def _bound_memory() -> None:
    """Let the sessions that share onnxruntime's memory take a part of what is there; it can be said once in a process."""
    room = available_memory(torch.device("cpu"))
    if room is None:
        return
    kind: Any = onnxruntime
    info = kind.OrtMemoryInfo("Cpu", kind.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, kind.OrtMemType.DEFAULT)
    kind.create_and_register_allocator(info, kind.OrtArenaCfg({"max_mem": int(_ROOM * room)}))


def session_of(model: Classifier) -> Session:
    """Return `model` as a graph that runs; its weights are not written anywhere."""
    graph = draw(model)
    proto, outside = to_proto(graph, model, metadata(model), beside="memory")
    return Session(proto.SerializeToString(), {name: graph.weights[name] for name in outside})
