"""What runs a model: a batch of images in, logits and features out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitlab.models.classifier import Classifier


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
        device = next(self.model.parameters()).device
        features = self.model.features(self.model.image_spec.normalise(images.to(device)))
        return Outputs(self.model.head(features).float().cpu().numpy(), features.float().cpu().numpy())
