"""What runs a model: a batch of images in, logits and features out."""

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitlab.cost.available import available_memory
from vitlab.errors import SettingsError, one_line
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.weights.save import Header

log = logging.getLogger("vitlab")

Choice = Literal["auto", "eager", "compiled", "onnxruntime"]
"""How a model is run; "auto" is the fastest exact way that is installed."""
TOLERANCE = 1e-4
"""How far logits may lie from those of the model as PyTorch runs it, as a share of the largest where that is above 1."""
FEW = 16
"""For fewer images no graph is made: it takes half a second, and a model of S/16's size answers ten a second without one."""
COPIES = 3
"""Times the size of the weights that making a graph of them takes."""
CPU_FLOATS, CPU_FLOATS_OF_MANY, GPU_FLOATS = 1 << 19, 1 << 22, 1 << 28
"""Activations of a batch: on a CPU for each thread."""


@dataclass(frozen=True)
class Outputs:
    """Of each image of a batch the logits [b, k] and the features [b, r] that the head read."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


@runtime_checkable
class Engine(Protocol):
    """A way to run a model."""

    name: str

    def run(self, images: UInt8[Tensor, "b c h w"]) -> Outputs:
        """Return the outputs for `images`, as `ImageSpec.prepare` makes them."""
        ...


class Eager:
    """The model as PyTorch runs it, operator by operator, on the device where it is."""

    name = "eager"

    def __init__(self, model: Classifier) -> None:
        self.model = model

    @torch.inference_mode()
    def run(self, images: UInt8[Tensor, "b c h w"]) -> Outputs:
        """Return the outputs for `images`."""
        features, logits = _forward(self.model, images.to(device_of(self.model)))
        return Outputs(logits.float().cpu().numpy(), features.float().cpu().numpy())


class Compiled:
    """The model as torch.compile makes it, once for each shape of a batch, on the device where it is."""

    name = "compiled"

    def __init__(self, model: Classifier) -> None:
        self.model = model
        options: dict[str, Any] = {"freezing": True} if device_of(model).type == "cpu" else {}
        self._forward: Callable[..., tuple[Tensor, Tensor]] = torch.compile(_forward, dynamic=False, options=options)

    @torch.no_grad()
    def run(self, images: UInt8[Tensor, "b c h w"]) -> Outputs:
        """Return the outputs for `images`."""
        features, logits = self._forward(self.model, images.to(device_of(self.model)))
        return Outputs(logits.float().cpu().numpy(), features.float().cpu().numpy())


class OnnxRuntime:
    """A graph that onnxruntime runs on the CPU."""

    name = "onnxruntime"

    def __init__(self, session: Any) -> None:
        self.session = session

    @classmethod
    def of(cls, model: Classifier) -> "OnnxRuntime":
        """Return the engine of `model`, which stays in memory."""
        from vitlab.serve.onnx.session import session_of

        return cls(session_of(model))

    def run(self, images: UInt8[Tensor, "b c h w"]) -> Outputs:
        """Return the outputs for `images`."""
        found = self.session.run(images.numpy())
        return Outputs(found.get("logits", found["features"]), found["features"])  # without a head they are the same


def _forward(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    features = model.features(model.image_spec.normalise(images))
    return features, model.head(features)


def device_of(model: Classifier) -> torch.device:
    """Return where a model is."""
    return next(model.parameters()).device


@dataclass(frozen=True)
class Standalone:
    """An engine from a file, without the model that it was made from, and what the file says of that."""

    header: Header
    engine: Engine


def batch_size_for(settings: AnySettings, device: torch.device, images: int | None = None) -> int:
    """Return how many images are best run at once: a power of two, by the model, the device, and whether many `images` are to come.

    Every batch is padded to it, so that an answer does not depend on its companions. On a CPU a single image pays for all of its
    batch: as many as have 2 MB of activations for each thread, at most 8. Where it is known that at least `FEW` come nobody waits
    for one of them: as many as have 16 MB, at most 64, which on two cores makes Mini/4 at 32 faster by 1.8, Ti/16 at 224 by 1.4,
    S/16 by 1.2 and B/16 not at all. A GPU is idle with few: as many as have 1 GB, at most 64.
    """
    floats, most = GPU_FLOATS, 64
    if device.type == "cpu":
        few = images is None or images < FEW
        floats, most = (CPU_FLOATS, 8) if few else (CPU_FLOATS_OF_MANY, 64)
        floats *= torch.get_num_threads()
    fitting = max(1, floats // settings.forward_floats_per_image)
    return min(most, 1 << (fitting.bit_length() - 1))


def choose(model: Classifier, wanted: Choice = "auto", images: int | None = None) -> Engine:
    """Return the engine that is `wanted`; "auto" takes the fastest exact one that is installed.

    That is onnxruntime on a CPU, unless fewer than `FEW` `images` are expected, for which making the graph is not worth while; its
    first outputs are compared with the model's. torch.compile is never chosen by itself: it takes half a minute.

    Raises:
        SettingsError: what is wanted is not there, or not for this device.
    """
    device = device_of(model)
    match wanted:
        case "eager":
            return Eager(model)
        case "compiled":
            if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
                raise SettingsError("--engine", "compiled needs a C++ compiler", "install g++, or choose onnxruntime")
            return Compiled(model)
        case "onnxruntime":
            need_onnx("--engine onnxruntime")
            if device.type != "cpu":
                raise SettingsError("--engine", "onnxruntime runs on the CPU here", "add --device cpu, or choose eager")
            return OnnxRuntime.of(model)
        case "auto":
            few = images is not None and images < FEW
            return Eager(model) if few or device.type != "cpu" or not has_onnx() else _fastest(model)


def _fastest(model: Classifier) -> Engine:
    """Return onnxruntime if the model's graph fits the memory and gives the model's logits, else the model itself."""
    eager = Eager(model)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    room = available_memory(torch.device("cpu"))
    if room is not None and COPIES * weights > room:
        return eager
    try:
        engine, spec = OnnxRuntime.of(model), model.image_spec
    except Exception as error:  # of an installation that is broken or too old; PyTorch is there in any case
        log.warning("onnxruntime cannot run the model (%s), and is not used", one_line(f"{error}"))
        return eager
    images = torch.randint(
        256, (1, 3, spec.height, spec.width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    off = deviation(engine.run(images), eager.run(images))
    if off <= TOLERANCE:
        return engine
    log.warning("onnxruntime differs from PyTorch by %.1e of the largest logit, and is not used", off)
    return eager


def deviation(found: Outputs, right: Outputs) -> float:
    """Return how far logits and features are from the `right` ones at most: as a share of the largest where that is above 1."""
    pairs = ((found.logits, right.logits), (found.features, right.features))
    shares = [np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)) for a, b in pairs]
    return float(np.max(shares))  # which is no number where one of them is none


def has_onnx() -> bool:
    """Return whether onnx and onnxruntime are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def need_onnx(what: str) -> None:
    """Refuse to go on without onnx and onnxruntime.

    Raises:
        SettingsError: they are not installed.
    """
    if not has_onnx():
        raise SettingsError(what, "needs onnx and onnxruntime", "pip install 'vitlab[export]'")
