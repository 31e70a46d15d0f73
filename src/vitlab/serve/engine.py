"""What runs a model: a batch of images in, logits and features out."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import Classifier

Choice = Literal["auto", "eager", "compiled", "onnxruntime"]
"""How a model is run; "auto" is the fastest exact way that is installed."""
TOLERANCE = 1e-4
"""How far logits may lie from those of the model as PyTorch runs it, as a share of the largest where that is above 1."""


@dataclass(frozen=True)
class Outputs:
    """Of each image of a batch the logits [b, k] and the features [b, r] that the head read."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


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
        options: dict[str, Any] = {"freezing": True} if device_of(model).type == "cpu" else {"max_autotune": False}
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
        return Outputs(found["logits"], found["features"])


def _forward(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    features = model.features(model.image_spec.normalise(images))
    return features, model.head(features)


def device_of(model: Classifier) -> torch.device:
    """Return where a model is."""
    return next(model.parameters()).device
